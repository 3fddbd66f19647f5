"""Ranges of bytes in local files: a file, a member of an archive, or bytes in memory.

Everything blocks: callers are worker threads. A FileRange may be used by several threads.

Rules that hold here:

- Only regular files are opened, with O_NOFOLLOW and O_NONBLOCK. A FIFO, a device or a socket is an
  error, and the open never blocks.
- A file that changed since it was opened is an error. Other bytes are never returned.
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
# O_NONBLOCK: the open of a FIFO returns at once. O_NOCTTY: a terminal does not become the
# controlling terminal.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class FileRange:
    """A range of bytes. `version` changes when the bytes may have changed.

    `read_at(offset, length)`: reads within the range.
    `trusted`: the bytes may be served before they are verified. False for a file that another user
    may have linked into the layout.
    """

    size: int
    version: Version
    read_at: Callable[[int, int], bytes]
    trusted: bool = True

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start+length) of the range, fewer only at its end."""
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
    """Raise Malformed for a file that may belong to another user.

    Called for files without a digest, such as manifest.json.
    """
    if not place.trusted:
        hint = "a copy of the directory, made with `cp -r`, can be read"
        raise Malformed(
            f"{shown} has another owner than its directory, or several names on disk", hint=hint
        )


def memory_range(body: bytes) -> FileRange:
    """A range of bytes in memory."""
    return FileRange(len(body), (), lambda start, length: body[start : start + length])


def version_of(status: os.stat_result) -> Version:
    """A value that changes whenever a file's content changes.

    It includes the inode's change time, which the owner of the file cannot set.
    """
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_regular(name: str, shown: str, *, within: int | None = None) -> int:
    """Open a regular file for reading. Raises NotFound, AccessDenied, Malformed.

    `within`: the descriptor of a directory; links in it are not followed.
    """
    with translate_errors(shown):
        # The path of the source may be a link. A name inside a layout may not (decision 0273).
        follow = 0 if within is None else os.O_NOFOLLOW
        descriptor = os.open(name, _FLAGS | follow, dir_fd=within)
    try:
        # The open file is checked, since a name could be replaced between its check and the open.
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
    """Bytes of an open file. Raises RegistryFailed if the file is shorter."""
    pieces = []
    # pread may return fewer bytes, for example after a signal.
    while length:
        with translate_errors(shown):
            piece = os.pread(descriptor, length, offset)
        if not piece:
            raise RegistryFailed(f"{shown} became shorter while it was read")
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_version(descriptor: int, version: Version, shown: str) -> None:
    """Raise RegistryFailed if an open file has changed."""
    with translate_errors(shown):
        same = version_of(os.fstat(descriptor)) == version
    if not same:
        raise RegistryFailed(
            f"{shown} changed while it was read",
            hint="wait until it is completely written, then try again",
        )


def file_type(mode: int) -> str:
    """The type of a file, for messages."""
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
    """Turn an error of the operating system about a path into an error of ocifs."""
    try:
        yield
    except OSError as error:
        raise _error_of(error, shown) from None
    except ValueError:
        # A NUL in the name, or text that cannot be encoded.
        raise NotFound(f"no such file or directory: {shown!r}") from None


def _error_of(error: OSError, shown: str) -> NotFound | AccessDenied | RegistryFailed | Malformed:
    # ENOTDIR: a component of the path is a file, so that the path does not exist.
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"no such file or directory: {shown}")
    if isinstance(error, PermissionError):
        return AccessDenied(f"permission denied: {shown}")
    # A socket, or a device without a driver.
    if error.errno in (errno.ENXIO, errno.ENODEV):
        return Malformed(f"not a regular file: {shown}")
    # With O_NOFOLLOW, open(2) reports a symbolic link as ELOOP.
    if error.errno == errno.ELOOP:
        return Malformed(f"a symbolic link, or too many levels of symbolic links: {shown}")
    return RegistryFailed(f"cannot read {shown}: {error.strerror}")
