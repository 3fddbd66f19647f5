"""Eviction: keeps the size of the cache, and the free space on its disk, within bounds.

Called from worker threads. Several processes may use and evict from the cache.

The least recently used item goes first, whichever process used it. Small items that lead to others
(manifests, configs, layer indexes, names) go after everything else. Items that are open in any
process, and pinned items, stay.

- An item is removed under an exclusive lock on its file, so never while a process has it open.
- One process evicts at a time.
- An eviction that is interrupted leaves a consistent cache.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.settings import GIB, MIB, CacheSettings
from ocifs.store.disk import CacheDirectory
from ocifs.store.upkeep.inventory import LEFTOVER, NAME, Item, inventory
from ocifs.store.upkeep.pins import pins

log = logging.getLogger("ocifs.store")

# Without --cache-size: the size, or the percentage of the disk, whichever is less.
LARGEST, LARGEST_SHARE = 10 * GIB, 10
# The same without --cache-free.
FLOOR, FLOOR_SHARE = 1 * GIB, 5
# A percentage of the limit that is freed beyond the necessary, so that not every new blob evicts.
_FURTHER = 10
AT_LEAST = 64 * MIB  # freed when a write found the disk full
# A writer locks its temporary file just after creating it, so a young one may be in use.
_LEFT_AFTER = 60.0  # seconds after which an unlocked temporary file is a leftover
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_WAIT = 10.0  # seconds to wait for an eviction by another process


@dataclass(frozen=True, slots=True)
class Bounds:
    """In bytes: the largest size of the cache, and the least free space on its disk."""

    size: int
    free: int


@dataclass(slots=True)
class Report:
    """The result of an eviction: the size of the cache in bytes, and the items removed.

    `over`: bytes by which the bounds are still exceeded.
    """

    size: int = 0
    evicted: list[Item] = field(default_factory=list)
    leftovers: list[Item] = field(default_factory=list)
    over: int = 0

    @property
    def freed(self) -> int:
        return sum(item.size for item in self.evicted)


def bounds(directory: CacheDirectory, settings: CacheSettings) -> Bounds:
    """The bounds of a cache: from the settings, or from the size of its disk. Raises OSError."""
    file_system = os.statvfs(directory.root)
    whole = file_system.f_blocks * file_system.f_frsize
    size = min(LARGEST, whole * LARGEST_SHARE // 100) if settings.size is None else settings.size
    free = (
        min(FLOOR, whole * FLOOR_SHARE // 100)
        if settings.free_space is None
        else settings.free_space
    )
    return Bounds(size, free)


def evict(
    directory: CacheDirectory,
    limits: Bounds,
    *,
    least: int = 0,
    exactly: bool = False,
    wait: float = _WAIT,
) -> Report | None:
    """Evict until the cache is within its bounds, and at least `least` bytes.

    None if another process evicts for longer than `wait` seconds. `exactly`: do not evict a tenth
    of the limit in advance, as while bytes arrive. Raises OSError.
    """
    with _single(directory, wait) as locked:
        if not locked:
            return None
        # Looked through with the lock held, so that two processes do not evict for one need.
        items = inventory(directory)
        leftovers = remove_leftovers(items)
        items = [item for item in items if item not in leftovers]
        report = Report(sum(item.size for item in items), leftovers=leftovers)
        needed = max(report.size - limits.size, limits.free - free_space(directory), least)
        if needed > 0:
            goal = needed + (0 if exactly else limits.size * _FURTHER // 100)
            digests, names = pinned(directory)
            for item in sorted(items, key=lambda item: (item.late, item.used)):
                if report.freed >= goal:
                    break
                if item.kind != LEFTOVER and not is_pinned(item, digests, names) and remove(item):
                    report.evicted.append(item)
            report.size -= report.freed
            report.over = max(0, needed - report.freed)
    if report.evicted:
        log.info(
            "evicted %d items, %d bytes; %d bytes remain",
            len(report.evicted),
            report.freed,
            report.size,
        )
    return report


def remove_leftovers(items: Iterable[Item], older: float = _LEFT_AFTER) -> list[Item]:
    """Remove the unfinished files of processes that have ended. Returns the removed items."""
    oldest = time.time() - older
    return [
        item for item in items if item.kind == LEFTOVER and item.used <= oldest and remove(item)
    ]


def pinned(directory: CacheDirectory) -> tuple[frozenset[object], frozenset[str]]:
    """The digests, and the names, of all pins."""
    every = pins(directory)
    return (
        frozenset(digest for pin in every for digest in pin.digests),
        frozenset(name for pin in every for name in pin.names),
    )


def is_pinned(item: Item, digests: Iterable[object], names: Iterable[str]) -> bool:
    """Whether a pin protects an item. Data derived from a pinned blob is protected."""
    if item.kind == NAME:
        return "/".join(item.paths[0].parts[-2:]) in names
    return item.digest in digests


def remove(item: Item, *, forced: bool = False) -> bool:
    """Remove an item, unless a process uses it; whether it was removed.

    `forced`: also if it is in use. Processes that have it open can still read it.
    """
    with ExitStack() as stack:
        # The map first: a writer holds only the map of its blob, and the content must not vanish.
        for path in reversed(item.paths):
            descriptor = _lock(path, forced=forced)
            if descriptor is None:
                return False
            if descriptor >= 0:
                stack.callback(os.close, descriptor)
        for path in item.paths:
            with contextlib.suppress(FileNotFoundError):
                try:
                    path.unlink()
                except OSError as error:
                    if isinstance(error, FileNotFoundError):
                        raise
                    log.warning("cannot evict %s: %s", path, error.strerror)
                    return False
    return True


def _lock(path: Path, *, forced: bool) -> int | None:
    """A descriptor with an exclusive lock, -1 if there is no file to lock.

    None: a process uses the file, or may use it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        # Without a descriptor the lock cannot be tested, so the file may be in use.
        return None if error.errno in _EXHAUSTED and not forced else -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if not forced:
            os.close(descriptor)
            return None
    return descriptor


@contextmanager
def _single(directory: CacheDirectory, wait: float) -> Iterator[bool]:
    """Lock the cache against evictions by other processes. False: another one is evicting."""
    descriptor = os.open(directory.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _locked(descriptor, wait)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, wait: float) -> bool:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)  # flock has no timeout of its own, and this is a worker thread
        else:
            return True


def free_space(directory: CacheDirectory) -> int:
    """Bytes that this user can still write to the cache's disk. Raises OSError."""
    file_system = os.statvfs(directory.root)
    # Not f_bfree, which includes the blocks that are reserved for root.
    return file_system.f_bavail * file_system.f_frsize
