"""The cache's directory: which file holds what.

    v1/blobs/<algorithm>/<hex>          whole blobs, verified: readable by any tool as the blobs of
    an image layout v1/partial/<algorithm>/<hex>        blobs of which some blocks are here, and
    beside each its map, <hex>.map v1/sums/<algorithm>/<hex>           of a whole blob that was
    fetched, its map: a checksum for each 64 KiB (blockmap.py) v1/derived/<kind>/<algorithm>/<hex>
    what was made from a blob (shelf.py) v1/names/<host>/<hash>.json         what a tag, a list or a
    manifest's type last was, for one credential v1/pins/<hash>.json                 what is never
    evicted (pins.py)

Rules that hold here: a path is made from `Digest`s and hashes alone; a whole file appears by rename
after fsync, so that nobody ever sees a part of one; the directory belongs to one user, and one that
others can write is refused. Who uses a file holds a shared lock on it (flock), and who takes one
away an exclusive one; the time of a file's content is when it was last used.
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
from typing import TypeVar

from ocifs.errors import CacheFailed, CacheFull, OcifsError, UsageError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.batches import WriteBatches

log = logging.getLogger("ocifs.store")

T = TypeVar("T")

VERSION = "v1"
TEMPORARY = ".tmp-"
"""How files begin that are being written and have no place yet. Who writes one holds a lock on it."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOUCH_EVERY = 60.0  # seconds between two notes that a small file was used
_SMALL_FILE = 64 * MIB  # the largest that is read at once: the names of a repository's tags


def make_directory(path: Path) -> None:
    """Make a directory and those above it that are missing, each for this user alone, whatever the
    umask. Raises OSError.
    """
    missing = []
    while not path.is_dir() and path != path.parent:
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


class Disk:
    """A cache directory. Everything here blocks.

    `on_growth` is called with each count of bytes that were written; `make_room` where the disk is
    full: whether trying again makes sense. Both are called in any thread. `report` is told of what
    was found damaged, in the event loop.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / VERSION
        self.on_growth: Callable[[int], None] = lambda count: None
        self.make_room: Callable[[], bool] = lambda: False
        self.report: Callable[[str], None] = log.warning
        self.batches = WriteBatches()
        self._room = threading.Lock()
        try:
            make_directory(self.root)
            found = directory.stat()
            inside = self.root.stat()
        except OSError as error:
            raise UsageError(
                f"the cache directory {directory} cannot be made: {error.strerror}",
                hint="name another with --cache-dir",
            ) from None
        if {found.st_uid, inside.st_uid} != {os.geteuid()}:
            raise UsageError(
                f"the cache directory {directory} belongs to another user",
                hint="name one of your own with --cache-dir",
            )
        if (found.st_mode | inside.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"others can write to the cache directory {directory}",
                hint=f"chmod -R go-w {directory}",
            )

    def whole(self, digest: Digest) -> Path:
        """Where a whole blob is, when it is here."""
        return self.root / "blobs" / digest.algorithm / digest.encoded

    def partial(self, digest: Digest) -> Path:
        """Where a blob is while parts of it are missing."""
        return self.root / "partial" / digest.algorithm / digest.encoded

    def partial_map(self, digest: Digest) -> Path:
        """Where the map of such a blob is."""
        return self.root / "partial" / digest.algorithm / f"{digest.encoded}.map"

    def whole_map(self, digest: Digest) -> Path:
        """Where the checksums of a whole blob are."""
        return self.root / "sums" / digest.algorithm / digest.encoded

    def name(self, host: str, key: Digest) -> Path:
        """Where it is written what a name of a host last meant."""
        return self.root / "names" / Digest.of(host.encode()).encoded[:32] / f"{key.encoded}.json"

    def read(self, path: Path) -> bytes | None:
        """The content of a small file, or None when it cannot be read or is not small.

        Notes that it was used.
        """
        return read_small(path, note=True)

    def write(self, path: Path, content: bytes) -> None:
        """Put a small file in its place, whole or not at all."""
        try:
            self.with_room(lambda: self._write(path, content))
        except OSError as error:
            raise disk_error(error, path) from None
        self.on_growth(len(content))

    def remove(self, path: Path) -> None:
        """Take a small file away, if it is here."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, path) from None

    def _write(self, path: Path, content: bytes) -> None:
        make_directory(path.parent)
        number, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        try:
            with os.fdopen(number, "wb") as file:
                lock_shared(number)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                move_into_place(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def with_room(self, write: Callable[[], T]) -> T:
        """What `write` gives; where the disk is full it is called once more after something was
        evicted. Raises OSError.
        """
        try:
            return write()
        except OSError as error:
            if error.errno not in _FULL:
                raise
        with self._room:  # those who meet the full disk together make room once
            made = self.make_room()
        if not made:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write()


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a regular file.

    Raises OSError, also for a link, a FIFO, a device or a directory in its place.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def read_small(path: Path, *, note: bool = False) -> bytes | None:
    """The content of a small regular file, or None if it cannot be read or is not small.

    `note`: record that it was used.
    """
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            if note and os.fstat(file.fileno()).st_mtime < time.time() - _TOUCH_EVERY:
                touch(file.fileno())
            content = file.read(_SMALL_FILE + 1)
    except OSError:
        return None
    return content if len(content) <= _SMALL_FILE else None


def move_into_place(temporary: str, path: Path) -> None:
    """Rename a file to its place, also if a directory is there. Raises OSError."""
    try:
        os.rename(temporary, path)
    except (IsADirectoryError, NotADirectoryError):
        remove_paths(path)
        os.rename(temporary, path)


def remove_paths(*paths: Path) -> None:
    """Remove what is at some paths, also a directory. What cannot be removed stays."""
    for path in paths:
        with contextlib.suppress(OSError):
            try:
                path.unlink()
            except IsADirectoryError:
                shutil.rmtree(path, ignore_errors=True)


def lock_shared(descriptor: int) -> None:
    """Keep a file from being evicted for as long as the descriptor is open, and note that it is
    used.

    One that is just being evicted stays readable through the descriptor all the same.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    touch(descriptor)


def touch(descriptor: int) -> None:
    """A file was used now; that it cannot be noted is no reason to stop."""
    with contextlib.suppress(OSError):
        os.utime(descriptor)


def disk_error(error: OSError, path: Path) -> OcifsError:
    """What an error of the cache's own disk is to a reader."""
    if error.errno in _FULL:
        return CacheFull(
            f"the cache's disk is full ({path.parent})",
            hint="free some space, or name another place with --cache-dir",
        )
    return CacheFailed(
        f"cannot use the cache: {error.strerror or error} ({path})",
        hint="check the disk that it is on",
    )
