"""Finds programs, and removes the current directory from the search paths.

An empty or relative entry of PATH or PYTHONPATH (`export PATH=$PATH:`, `PYTHONPATH=:/opt/x`) means
the current directory. If root ran a command in another user's directory, it would run that user's
programs and modules.

Rules that hold here:

- A program is started by its absolute path.
- `exclude_current_directory` runs first in every entry point, before modules outside the standard
  library are imported. It cannot affect earlier imports of the interpreter: the Debian package
  starts Python with -I.
- Absolute entries of PATH and PYTHONPATH are trusted.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, MutableMapping


def absolute_entries(path: str) -> list[str]:
    """The entries of PATH or PYTHONPATH that do not depend on the current directory."""
    return [entry for entry in path.split(os.pathsep) if os.path.isabs(entry)]


def find_program(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The absolute path of a program on the PATH; None if there is none, or if `name` is a path."""
    if os.sep in name:
        return None
    entries = absolute_entries(environ.get("PATH", "")) or absolute_entries(os.defpath)
    return shutil.which(name, path=os.pathsep.join(entries))


def exclude_current_directory(environ: MutableMapping[str, str] = os.environ) -> None:
    """Remove relative entries from the search paths of this process and of its children."""
    # Unset rather than empty: an empty PATH is the current directory again.
    for name in ("PATH", "PYTHONPATH"):
        if name in environ:
            entries = absolute_entries(environ[name])
            if not sys.flags.ignore_environment and name == "PYTHONPATH":
                _exclude(set(environ[name].split(os.pathsep)) - set(entries))
            if entries:
                environ[name] = os.pathsep.join(entries)
            else:
                del environ[name]
    # `python -m ocifs` puts the current directory first.
    if not sys.flags.safe_path and sys.path[:1] == [_current_directory()]:
        _exclude({""})


def _exclude(relative: set[str]) -> None:
    """Remove directories from sys.path, except the one that contains this package."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    current = _current_directory()
    # Without that directory, later imports of ocifs would fail.
    excluded = {os.path.normpath(os.path.join(current, entry)) for entry in relative} - {home}
    sys.path[:] = [entry for entry in sys.path if os.path.isabs(entry) and entry not in excluded]


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        # The directory was removed.
        return ""
