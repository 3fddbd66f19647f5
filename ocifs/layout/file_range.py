"""Runs of bytes on this machine: a whole file, a member of an archive, or bytes in memory.

Everything blocks: callers are worker threads. A FileRange may be used from several threads.

Rules that hold here:
- Only regular files are opened, with O_NOFOLLOW and O_NONBLOCK: a FIFO, a device or a socket is an
  error, and never waited for.
- A file that changed since it was found is an error, never other bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ocifs.errors import AccessDenied, Malformed, NotFound, RegistryFailed

Version: TypeAlias = tuple[int, ...]
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class FileRange:
    """A run of bytes. `version` changes when the bytes may have.

    `trusted`: the bytes may be served before they are verified. False for a file that others may
    have linked into the layout. `read_at(offset, length)` reads within the run.
    """

    size: int
    version: Version
    read_at: Callable[[int, int], bytes]
    trusted: bool = True

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start+length) of the run, shorter only at its end."""
        length = max(0, min(length, self.size - start))
        return self.read_at(start, length) if length else b""

    def part(self, offset: int, size: int) -> FileRange:
        """A run within this one."""
        return FileRange(
            size,
            (*self.version, offset),
            lambda start, length: self.read_at(offset + start, length),
        )


def check_trusted(place: FileRange, shown: str) -> None:
    """Raise Malformed for a file that may be someone else's, where no digest vouches for its
    content.
    """
    if not place.trusted:
        hint = "a copy of the directory, made with `cp -r`, can be read"
        raise Malformed(
            f"{shown} has another owner than its directory, or several names on disk", hint=hint
        )


def memory_range(body: bytes) -> FileRange:
    """Bytes that were made here."""
    return FileRange(len(body), (), lambda start, length: body[start : start + length])


def version_of(status: os.stat_result) -> Version:
    """What changes whenever a file's content does.

    The inode's change time cannot be set by its owner.
    """
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_regular(name: str, shown: str, *, within: int | None = None) -> int:
    """Open a regular file for reading, in the directory `within` without following a link.

    Raises NotFound and the like.
    """
    with translate_errors(shown):
        follow = 0 if within is None else os.O_NOFOLLOW
        descriptor = os.open(name, _FLAGS | follow, dir_fd=within)
    try:
        _check_regular(descriptor, shown)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(descriptor: int, shown: str) -> None:
    with translate_errors(shown):
        mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise Malformed(f"not a regular file: {shown} ({file_type(mode)})")


def read_exactly(descriptor: int, offset: int, length: int, shown: str) -> bytes:
    """Bytes of an open file. Raises RegistryFailed when it has fewer."""
    pieces = []
    while length:
        with translate_errors(shown):
            piece = os.pread(descriptor, length, offset)
        if not piece:
            raise RegistryFailed(f"{shown} became shorter while it was read")
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_version(descriptor: int, version: Version, shown: str) -> None:
    """Raise RegistryFailed if an open file is not as it was found."""
    with translate_errors(shown):
        same = version_of(os.fstat(descriptor)) == version
    if not same:
        raise RegistryFailed(
            f"{shown} changed while it was read", hint="wait until it is written, then try again"
        )


def file_type(mode: int) -> str:
    """The type of a file as words."""
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFREG: "a regular file",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown type")


@contextmanager
def translate_errors(shown: str) -> Iterator[None]:
    """Turn an error of the operating system about a path into one of ocifs."""
    try:
        yield
    except OSError as error:
        raise _error_of(error, shown) from None
    except ValueError:  # a NUL in a name, or text that is not one
        raise NotFound(f"{shown!r} does not exist") from None


def _error_of(error: OSError, shown: str) -> NotFound | AccessDenied | RegistryFailed | Malformed:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"{shown} does not exist")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{shown} cannot be read by this user")
    if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device without a driver
        return Malformed(f"not a regular file: {shown}")
    if error.errno == errno.ELOOP:
        return Malformed(f"{shown} is a symbolic link, or too many lead to it")
    return RegistryFailed(f"{shown} cannot be read: {error.strerror}")
