"""The commands as functions, without a command line.

They are the logic of `ocifs find`, `export`, `prefetch`, `cache pin`, `cache verify`, `inspect` and
`doctor`:

    import ocifs
    from ocifs import verbs

    with ocifs.open("registry.example.com/team/app:v1") as tree:
        tree.run(verbs.export_image, "oci:./app")

Most verbs are coroutines that take an `ocifs.AsyncTree` first. They run in its event loop:
`Tree.run` calls them from any thread. Verbs on a cache block on disk and need no tree.

- A verb returns or yields dataclasses and raises OcifsError. It prints nothing and never exits.
- A verb that takes long updates a `Progress`, which may call back: the callback must not block.
- The command line (ocifs/cli) parses arguments, calls a verb and prints the result. The Python API
  and fsspec offer the same functions.
- A name of this package is imported when it is first used, so that a command imports only its own
  verb.
"""

_MODULES = {
    "Match": "find",
    "Unreadable": "find",
    "find_artifacts": "find",
    "open_search": "find",
    "Tag": "tags",
    "TagDetails": "tags",
    "list_tags": "tags",
    "describe_tags": "tags",
    "export_image": "export",
    "prefetch_paths": "prefetch",
    "PinReport": "pin",
    "pin_manifest": "pin",
    "pin_digest": "pin",
    "unpin": "pin",
    "verify_cache": "verify",
    "Inspection": "inspect",
    "inspect_manifest": "inspect",
    "Finding": "checks",
    "diagnose": "doctor",
    "check_setup": "doctor",
    "Progress": "progress",
}


def __getattr__(name: str) -> object:
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(f"ocifs.verbs.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(_MODULES)
