"""ocifs: a container registry as a filesystem.

    ocifs.open(source) -> Tree             blocking; see ocifs/api.py
    ocifs.open_async(source) -> AsyncTree  for trio

Rules that hold here:

- This module imports nothing on import, so that `ocifs --help` is fast.
- The version is that of the installed distribution, from a git tag
  (docs/decisions/0120-versions-from-tags.md). It is looked up when it is first used.
"""

__version__: str

_DISTRIBUTION = "ocifs-mount"
_API = ("AsyncTree", "Entry", "Options", "Stat", "Tree", "open", "open_async")
_ERRORS = ("OcifsError",)


def __getattr__(name: str) -> object:
    # By name: an import statement would be a dependency of every module on the API.
    import importlib

    if name in _API:
        _warn_of_clash()
        return getattr(importlib.import_module("ocifs.api"), name)
    if name in _ERRORS:
        return getattr(importlib.import_module("ocifs.errors"), name)
    if name == "__version__":
        return _version()
    if name == "OCIFileSystem":
        raise AttributeError(
            "this is ocifs-mount; OCIFileSystem is part of Oracle's package ocifs, "
            "which has the same import name; here the protocol for fsspec is oci-registry://"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _warn_of_clash() -> None:
    """Warn if another distribution has the same package. Commands do not use this path."""
    import importlib
    import warnings

    distributions = importlib.import_module("ocifs.distributions")
    message = distributions.clash()
    if message:
        warnings.warn(f"{message}; {distributions.REMEDY}", stacklevel=3)


def _version() -> str:
    import os
    import sys

    # The name of the installed metadata contains the version (PyPA, "Recording installed
    # projects"). importlib.metadata would find the same, but takes 10 ms to import.
    start, end = _DISTRIBUTION.replace("-", "_") + "-", ".dist-info"
    for directory in filter(None, sys.path):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            if name.startswith(start) and name.endswith(end):
                return name.removeprefix(start).removesuffix(end)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        # Not installed. The build has the same fallback.
        return "0.0.0"


def __dir__() -> list[str]:
    return ["__version__", *_API, *_ERRORS]
