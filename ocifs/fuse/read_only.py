"""The handlers of a file system that cannot be written: every change fails with EROFS."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

import pyfuse3

_CHANGES = (
    *("create", "mkdir", "mknod", "unlink", "rmdir", "rename", "link", "symlink"),
    *("setattr", "write", "setxattr", "removexattr"),
)


class ReadOnlyOperations(pyfuse3.Operations):
    """Base of handlers without a way to change anything."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return not mode & os.W_OK

    async def flush(self, fh: int) -> None:
        """ENOSYS lets close(2) succeed, and the kernel sends no further flush: a request less for
        each file.
        """
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def fsync(self, fh: int, datasync: bool) -> None:
        return None

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        return None


async def _read_only(*_: object) -> NoReturn:
    raise pyfuse3.FUSEError(errno.EROFS)


for _name in _CHANGES:
    setattr(ReadOnlyOperations, _name, _read_only)
