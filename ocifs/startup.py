"""A quick start of commands: called by the entry points, before other imports.

The commands are processes of a fraction of a second, most of which is Python importing libraries.
`prepare` changes how this process imports them; `leave` ends it. Programs that import ocifs as a
library do not call this module, and are not affected (docs/decisions/0320-start-of-commands.md).

- Only the standard library is imported here, and little of it.
- A library that changes makes commands slower, and never makes them fail.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn


def prepare() -> None:
    """Prepare the imports of this process."""
    # Imports create many objects and no garbage. `collect_from_now` ends this.
    gc.disable()
    _skip_command_of_httpx()
    sys.meta_path.insert(0, _BeforeTrio())


def collect_from_now() -> None:
    """Turn the garbage collector on when the command has been imported."""
    if not gc.isenabled():
        # The imported objects live as long as the process, so they are never examined.
        gc.freeze()
        gc.enable()


def _skip_command_of_httpx() -> None:
    """Let `import httpx` find its command line already imported.

    httpx imports its command, which imports rich and pygments if another program has installed
    them. That takes as long as all other imports together.
    """

    def main() -> NoReturn:
        raise SystemExit("the command httpx is not available in ocifs")

    module = ModuleType("httpx._main")
    setattr(module, "main", main)  # noqa: B010 (mypy: a module has no such attribute)
    sys.modules.setdefault("httpx._main", module)


class _BeforeTrio:
    """A finder that finds nothing, and prepares the import of trio when that begins."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Called for every import (`importlib.abc.MetaPathFinder`)."""
        if name == "trio":
            sys.meta_path.remove(self)
            _find_pthread_quickly()
        return None


def _find_pthread_quickly() -> None:
    """Let trio find the library that names threads without running ldconfig.

    trio asks ctypes for it when it is imported, and ctypes starts a program to find any library.
    """
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):  # not glibc
        return
    import ctypes.util

    find = ctypes.util.find_library

    def find_library(name: str) -> str | None:
        # Its name on all architectures of Linux that Python supports.
        return "libpthread.so.0" if name == "pthread" else find(name)

    ctypes.util.find_library = find_library


def leave(status: object) -> NoReturn:
    """End this process with the status of a SystemExit, without taking the interpreter apart.

    That takes 20 ms, and would wait for threads that wait for a name server.
    """
    if not isinstance(status, int | None):
        raise SystemExit(status)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError) as error:
        # The interpreter has this status for an output that fails.
        status = status or 120
        # `ocifs ls … | head` is not worth a message.
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            os.write(2, f"ocifs: cannot write the output: {error.strerror}\n".encode())
    os._exit(status or 0)
