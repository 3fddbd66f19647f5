"""ocifs: a container registry as a filesystem.

    ocifs.open(source) -> Tree             blocking          see ocifs/api.py
    ocifs.open_async(source) -> AsyncTree  on trio

Rules that hold here: importing this imports nothing else, since `ocifs --help` does; the version is
that of the installed distribution, which has it from a tag of git
(docs/decisions/0120-versions-from-tags.md), and is looked up when it is asked for: that takes 45
ms.
"""

__version__: str

_DISTRIBUTION = "ocifs-mount"
_API = ("AsyncTree", "Entry", "Options", "Stat", "Tree", "open", "open_async")
_ERRORS = ("OcifsError",)


def __getattr__(name: str) -> object:
    import importlib  # by name, so that no room below the API seems to import it

    if name in _API:
        return getattr(importlib.import_module("ocifs.api"), name)
    if name in _ERRORS:
        return getattr(importlib.import_module("ocifs.errors"), name)
    if name == "__version__":
        return _version()
    if name == "OCIFileSystem":
        raise AttributeError(
            "this is ocifs-mount; OCIFileSystem is of Oracle's package ocifs, which has the same import name"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "0.0.0"  # run from files that nobody installed; the same as the build's own fallback


def __dir__() -> list[str]:
    return ["__version__", *_API, *_ERRORS]
