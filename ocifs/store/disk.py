"""The cache's directory: the path of each file, and the only code that writes there.

    v1/blobs/<algorithm>/<hex>           whole blobs, verified; any tool can read them as the blobs
                                         of an image layout
    v1/partial/<algorithm>/<hex>         blobs of which some blocks are cached, with a map beside
                                         each, <hex>.map
    v1/sums/<algorithm>/<hex>            the map of a whole blob: a checksum for each 64 KiB
                                         (blobs/blockmap.py)
    v1/derived/<kind>/<algorithm>/<hex>  indexes, merged trees and the like (derived.py)
    v1/names/<host>/<hash>.json          the last answer for a tag, a list or a manifest's type, for
                                         one credential (names/files.py)
    v1/pins/<hash>.json                  pins (upkeep/pins.py)

Everything here blocks, and is called from worker threads. Several processes, and several threads of
one process, use a directory at the same time.

- A path is made from `Digest`s and hashes only.
- A whole file appears by rename after fsync, so no reader ever sees an incomplete one.
- The directory belongs to one user. A directory that others can write to is rejected.
- A process that uses a file holds a shared lock on it (flock). Eviction takes an exclusive lock.
- The modification time of a file's content is the time of its last use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from ocifs.errors import CacheFailed, CacheFull, OcifsError, UsageError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.batches import WriteBatches

log = logging.getLogger("ocifs.store")

T = TypeVar("T")

VERSION = "v1"
TEMPORARY = ".tmp-"
"""The prefix of a file that is being written. Its writer holds a lock on it."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOUCH_EVERY = 60.0  # seconds between two updates of a small file's time of use
_SMALL_FILE = 64 * MIB  # the most that is read at once: the tags of a large repository


class Space(Protocol):
    """Keeps the cache within its bounds. Called from any thread."""

    def grew(self, count: int) -> None:
        """Bytes were written."""
        ...

    def make_room(self) -> bool:
        """Free space, since the disk is full; True if the write is worth another try."""
        ...


class _Unmanaged:
    """The Space of a process that evicts nothing, such as a single command."""

    def grew(self, count: int) -> None:
        pass

    def make_room(self) -> bool:
        return False


class CacheDirectory:
    """The paths of a cache, created if it is missing. Nothing here writes to files of the cache.

    Raises UsageError for a directory that cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / VERSION
        try:
            make_directory(self.root)
            outer, inner = directory.stat(), self.root.stat()
        except OSError as error:
            raise UsageError(
                f"cannot create the cache directory {directory}: {error.strerror}",
                hint="choose another one with --cache-dir",
            ) from None
        # Another user who can write here could replace verified content.
        if {outer.st_uid, inner.st_uid} != {os.geteuid()}:
            raise UsageError(
                f"the cache directory {directory} belongs to another user",
                hint="choose one of your own with --cache-dir",
            )
        if (outer.st_mode | inner.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"other users can write to the cache directory {directory}",
                hint=f"chmod -R go-w {directory}",
            )

    def whole(self, digest: Digest) -> Path:
        """The path of a whole blob."""
        return self.root / "blobs" / digest.algorithm / digest.encoded

    def partial(self, digest: Digest) -> Path:
        """The path of a blob while some of its blocks are missing."""
        return self.root / "partial" / digest.algorithm / digest.encoded

    def partial_map(self, digest: Digest) -> Path:
        """The path of a partial blob's map."""
        return self.root / "partial" / digest.algorithm / f"{digest.encoded}.map"

    def whole_map(self, digest: Digest) -> Path:
        """The path of a whole blob's map."""
        return self.root / "sums" / digest.algorithm / digest.encoded

    def name(self, host: str, key: Digest) -> Path:
        """The path of the last answer about a name of a host."""
        return self.root / "names" / Digest.of(host.encode()).encoded[:32] / f"{key.encoded}.json"

    def read(self, path: Path) -> bytes | None:
        """The content of a small file, or None if it cannot be read or is not small.

        Updates its time of use.
        """
        return read_small(path, used=True)


class Disk(CacheDirectory):
    """A cache that can be written to.

    `report` is called in the event loop with damage that was found; by default it is logged.
    `batches` divides the memory for bytes that are on their way to this disk.
    """

    def __init__(
        self,
        directory: Path,
        space: Space | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(directory)
        self.report = report or log.warning
        self.batches = WriteBatches()
        self._space = space or _Unmanaged()
        self._making_room = threading.Lock()

    def grew(self, count: int) -> None:
        """Record that bytes were written by the caller."""
        self._space.grew(count)

    def write(self, path: Path, content: bytes) -> None:
        """Write a small file, completely or not at all. Raises CacheFull, CacheFailed."""
        try:
            self.with_room(lambda: _write(path, content))
        except OSError as error:
            raise disk_error(error, path) from None
        self.grew(len(content))

    def remove(self, path: Path) -> None:
        """Remove a small file, if it exists. Raises CacheFailed."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, path) from None

    def explain(self, error: OSError, path: Path) -> OcifsError:
        """The error that a reader gets for an error of this disk."""
        return disk_error(error, path)

    def with_room(self, write: Callable[[], T]) -> T:
        """The result of `write`, which is called a second time if the disk was full and space could
        be freed. Raises OSError.
        """
        try:
            return write()
        except OSError as error:
            if error.errno not in _FULL:
                raise
        # One thread of this process evicts at a time.
        with self._making_room:
            freed = self._space.make_room()
        if not freed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write()


def _write(path: Path, content: bytes) -> None:
    make_directory(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # A temporary file without a lock is taken for a leftover, and removed.
            lock_shared(descriptor)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            move_into_place(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, each for this user only, with any umask.

    Raises OSError.
    """
    # Not `parents=True`, which creates parents with the permissions of the umask.
    missing = []
    while not path.is_dir() and path != path.parent:
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        # Another process may create the same directory at this moment.
        directory.mkdir(mode=0o700, exist_ok=True)


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a regular file.

    Raises OSError, also for a symbolic link, a FIFO, a device or a directory.
    """
    # O_NONBLOCK, since opening a FIFO would wait for its writer.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def read_small(path: Path, *, used: bool = False) -> bytes | None:
    """The content of a small regular file, or None if it cannot be read or is not small.

    `used`: update its time of use.
    """
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            if used and os.fstat(file.fileno()).st_mtime < time.time() - _TOUCH_EVERY:
                touch(file.fileno())
            # One byte more reveals a file that is too large, also one that grows meanwhile.
            content = file.read(_SMALL_FILE + 1)
    except OSError:
        return None
    return content if len(content) <= _SMALL_FILE else None


def move_into_place(temporary: str, path: Path) -> None:
    """Rename a file to its final path, replacing a file or directory there. Raises OSError."""
    try:
        os.rename(temporary, path)
    except (IsADirectoryError, NotADirectoryError):
        remove_paths(path)
        os.rename(temporary, path)


def remove_paths(*paths: Path) -> None:
    """Remove files and directories, as far as possible."""
    for path in paths:
        with contextlib.suppress(OSError):
            try:
                path.unlink()
            except IsADirectoryError:
                shutil.rmtree(path, ignore_errors=True)


def lock_shared(descriptor: int) -> None:
    """Protect a file from eviction until the descriptor is closed, and update its time of use.

    A file that is being evicted at this moment remains readable through the descriptor.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    touch(descriptor)


def touch(descriptor: int) -> None:
    """Update the time of use, if the file system permits it."""
    with contextlib.suppress(OSError):
        os.utime(descriptor)


def disk_error(error: OSError, path: Path) -> OcifsError:
    """The error that a reader gets for an error of the cache's own disk."""
    if error.errno in _FULL:
        # The directory that the user has chosen, not one below it.
        root = next((place.parent for place in path.parents if place.name == VERSION), path.parent)
        return CacheFull(
            f"the cache's disk is full ({root})",
            hint="free some space, or choose another directory with --cache-dir",
        )
    return CacheFailed(
        f"cannot use the cache: {error.strerror or error} ({path})",
        hint="check the disk of the cache directory",
    )
