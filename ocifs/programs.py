"""Where programs and modules come from: never the current directory.

An empty or relative entry of PATH or PYTHONPATH (`export PATH=$PATH:`, `PYTHONPATH=:/opt/x`) means
the current directory. A command that root runs in another user's directory would run that user's
programs and modules.

Rules that hold here:

- A program is named by its absolute path before it is run.
- `exclude_current_directory` runs first in every entry point, before modules outside the standard
  library are imported. What the interpreter imports earlier is out of reach: the Debian package
  starts it with -I.
- Whatever is absolute in PATH and PYTHONPATH is trusted.
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
    """Look for programs and modules at absolute places only, here and in every program that is
    started.
    """
    # Unset rather than empty: an empty PATH is the current directory again.
    for name in ("PATH", "PYTHONPATH"):
        if name in environ:
            entries = absolute_entries(environ[name])
            if not sys.flags.ignore_environment and name == "PYTHONPATH":
                _leave_out(set(environ[name].split(os.pathsep)) - set(entries))
            if entries:
                environ[name] = os.pathsep.join(entries)
            else:
                del environ[name]
    if not sys.flags.safe_path and sys.path[:1] == [_current_directory()]:  # `python -m ocifs`
        _leave_out({""})


def _leave_out(relative: set[str]) -> None:
    """Take directories off the module search path, except the one that this package was imported
    from.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    here = _current_directory()
    gone = {os.path.normpath(os.path.join(here, entry)) for entry in relative} - {home}
    sys.path[:] = [entry for entry in sys.path if os.path.isabs(entry) and entry not in gone]


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""
