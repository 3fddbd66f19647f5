"""Reads files that control this program: configuration, credentials, passwords.

Rules that hold here:

- Blocks, but only for regular files: a FIFO or a device is an error.
- The size is bounded.
- A file that others can write to is read, as in other tools. `unsafe_permissions` returns the text
  of a warning.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_NULL = os.makedev(1, 3)  # /dev/null, a common name for an empty file (admin-guide/devices.txt)


def read_user_file(path: Path, most: int) -> bytes:
    """Read at most `most` bytes of a regular file. /dev/null is empty.

    Raises OSError, with EINVAL for a file of another type.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        mode = status.st_mode
        if stat.S_ISCHR(mode) and status.st_rdev == _NULL:
            return b""
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return file.read(most)


def unsafe_permissions(path: Path) -> str:
    """Why users other than this one and root can change a file, or "" if they cannot."""
    try:
        file, directory = path.stat(), path.resolve().parent.stat()
    except OSError:
        return ""
    if file.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user"
    if _others_can_write(file):
        return f"others can write to {path}: chmod go-w {path}"
    if directory.st_uid not in (0, os.geteuid()):
        return f"the directory of {path} belongs to another user"
    # In a sticky directory such as /tmp, only the owner can rename or remove a file.
    if _others_can_write(directory) and not directory.st_mode & stat.S_ISVTX:
        return f"others can replace {path}: chmod go-w {path.parent}"
    return ""


def _others_can_write(status: os.stat_result) -> bool:
    """Whether others can write.

    The user's primary group is trusted: on many systems it has no other members.
    """
    group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    return bool(status.st_mode & stat.S_IWOTH or group)
