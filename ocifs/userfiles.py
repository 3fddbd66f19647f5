"""Files of the user's own that decide what this program does: configuration, credentials,
passwords.

Rules that hold here: blocks, but never without end: a FIFO or a device is not read; what is read is
bounded; a file that others can write is read, since the other tools do so, and `unsafe_permissions`
says why that deserves a warning.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_NULL = os.makedev(1, 3)  # /dev/null, a common name for an empty file (admin-guide/devices.txt)


def read_user_file(path: Path, most: int) -> bytes:
    """At most `most` bytes of a regular file, none of /dev/null.

    Raises OSError: EINVAL for what is none, without waiting for a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        mode = found.st_mode
        if stat.S_ISCHR(mode) and found.st_rdev == _NULL:
            return b""
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return file.read(most)


def unsafe_permissions(path: Path) -> str:
    """Why others than this user and root may change a file: a sentence, or nothing if they may not."""
    try:
        found, above = path.stat(), path.resolve().parent.stat()
    except OSError:
        return ""
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user"
    if _others_write(found):
        return f"others can write to {path}: chmod go-w {path}"
    if above.st_uid not in (0, os.geteuid()):
        return f"the directory of {path} belongs to another user"
    if _others_write(above) and not above.st_mode & stat.S_ISVTX:
        return f"others can replace {path}: chmod go-w {path.parent}"
    return ""


def _others_write(found: os.stat_result) -> bool:
    """Whether others may write.

    Many systems give each user a group of their own, in which nobody else is.
    """
    group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())
    return bool(found.st_mode & stat.S_IWOTH or group)
