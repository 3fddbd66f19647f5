"""mount(2) and umount2(2), which mount(8) cannot replace: it makes loop devices by itself.

Every function blocks and is called in a worker thread, or by a command. The event loop must not
call them: mounting reads from the mount that the event loop serves.

- ctypes releases the interpreter's lock during a call.
- Errors are OSErrors with the errno of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ocifs.concurrency import start_thread

# <sys/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOSYMFOLLOW = 1, 2, 4, 8, 256
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CLONE_FS = 0x200  # <sched.h>


def mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    """Mount a file system (mount(2)). A relative source is relative to the current directory."""
    arguments = (source, str(target), kind)
    packed = [os.fsencode(text) for text in arguments]
    _checked(_libc().mount(*packed, ctypes.c_ulong(flags), os.fsencode(data)), str(target))


def detach(target: Path) -> None:
    """Detach a mount, also if it is in use: it ends with its last user (MNT_DETACH)."""
    _unmount(target, _MNT_DETACH)


def unmount(target: Path) -> None:
    """Unmount. Raises OSError with EBUSY if it is in use."""
    _unmount(target, 0)


def _unmount(target: Path, flags: int) -> None:
    path = os.fsencode(target)
    _checked(_libc().umount2(path, flags | _UMOUNT_NOFOLLOW), str(target))


def run_in_directory(directory: Path, work: Callable[[], None]) -> None:
    """Run work in a thread with its own current directory, and return when it has ended.

    The current directory of the process stays as it is.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            # The thread is a new one: after this call it shares its directory with no other.
            _checked(_libc().unshare(_CLONE_FS), str(directory))
            os.chdir(directory)
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="mount")
    start_thread(thread)
    thread.join()
    if errors:
        raise errors[0]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, name: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
