"""The user's directories: home, configuration, cache, runtime.

Called from any thread. Blocks only on the password database.

Rules that hold here:

- All parts of ocifs use these functions, so that credentials, trust, registries.conf, the
  configuration file and the cache agree.
- Without HOME, the password database is used, as in docker and podman. systemd does not set HOME
  for mount units, and sets it for system units only with `User=`.
- Relative paths in HOME and in XDG variables are ignored (XDG Base Directory Specification,
  "Basics"): they would depend on the current directory.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str]) -> Path:
    """The user's home directory; `/` for a user without an entry in the password database."""
    path = environ.get("HOME", "")
    if os.path.isabs(path):
        return Path(path)
    try:
        path = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        path = ""
    return Path(path) if os.path.isabs(path) else Path("/")


def config_home(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME`, else `~/.config`."""
    return absolute(environ, "XDG_CONFIG_HOME") or home(environ) / ".config"


def cache_home(environ: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME`, else `~/.cache`."""
    return absolute(environ, "XDG_CACHE_HOME") or home(environ) / ".cache"


def runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """`$XDG_RUNTIME_DIR`, which has no default."""
    return absolute(environ, "XDG_RUNTIME_DIR")


def absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """The directory that an XDG variable names; None if it is unset, empty or relative."""
    value = environ.get(name, "")
    return Path(value) if os.path.isabs(value) else None
