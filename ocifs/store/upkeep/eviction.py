"""The cache's bounds: its size, and the space that is left free on its disk.

What was used longest ago goes first, whoever used it; what is small and leads to others (manifests,
configs, indices of layers, names) goes after everything else. What is open in any process, or
pinned, stays.

Rules that hold here: a thing is taken away under an exclusive lock on its file, so not while
anybody has it; one process evicts at a time; an eviction that is ended half way leaves a cache like
any other; nothing here runs in the event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.settings import GIB, MIB, CacheSettings
from ocifs.store.disk import Disk
from ocifs.store.upkeep.inventory import LEFTOVER, NAME, Item, inventory
from ocifs.store.upkeep.pins import pins

log = logging.getLogger("ocifs.store")

LARGEST, LARGEST_SHARE = (
    10 * GIB,
    10,
)  # without --cache-size: so much, or that per cent of the disk, whichever is less
FLOOR, FLOOR_SHARE = (
    1 * GIB,
    5,
)  # without --cache-free: so much, or that per cent of the disk, whichever is less
# per cent of the limit that is freed beyond what must be, so that not every new blob evicts one
_FURTHER = 10
AT_LEAST = 64 * MIB  # what is freed when a write met a full disk
_LEFT_AFTER = 60.0  # seconds after which a file that nobody writes to is a leftover
_PATIENCE = 10.0  # seconds for which another process's eviction is waited for


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes: what the cache may take, and what is to stay free on its disk."""

    size: int
    free: int


@dataclass(slots=True)
class Report:
    """What an eviction found and did, in bytes and things.

    `over`: bytes by which the bounds are still passed.
    """

    size: int = 0
    evicted: list[Item] = field(default_factory=list)
    leftovers: list[Item] = field(default_factory=list)
    over: int = 0

    @property
    def freed(self) -> int:
        return sum(each.size for each in self.evicted)


def bounds(disk: Disk, settings: CacheSettings) -> Bounds:
    """The bounds that settings mean on the disk that the cache is on."""
    found = os.statvfs(disk.root)
    whole = found.f_blocks * found.f_frsize
    size = min(LARGEST, whole * LARGEST_SHARE // 100) if settings.size is None else settings.size
    free = (
        min(FLOOR, whole * FLOOR_SHARE // 100)
        if settings.free_space is None
        else settings.free_space
    )
    return Bounds(size, free)


def evict(
    disk: Disk, limits: Bounds, *, least: int = 0, exactly: bool = False, wait: float = _PATIENCE
) -> Report | None:
    """Evict until the bounds are kept, and `least` bytes in any case; None when another process is
    at it for longer than `wait`.

    `exactly`: not a tenth of the limit further, as is done when bytes come in.
    """
    with _alone(disk, wait) as mine:
        if not mine:
            return None
        items = inventory(disk)
        leftovers = remove_leftovers(items)
        items = [each for each in items if each not in leftovers]
        report = Report(sum(each.size for each in items), leftovers=leftovers)
        needed = max(report.size - limits.size, limits.free - free_space(disk), least)
        if needed > 0:
            goal = needed + (0 if exactly else limits.size * _FURTHER // 100)
            kept, names = pinned(disk)
            for item in sorted(items, key=lambda each: (each.late, each.used)):
                if report.freed >= goal:
                    break
                if item.kind != LEFTOVER and not is_pinned(item, kept, names) and remove(item):
                    report.evicted.append(item)
            report.size -= report.freed
            report.over = max(0, needed - report.freed)
    if report.evicted:
        log.info(
            "evicted %d things, %d bytes; %d are kept",
            len(report.evicted),
            report.freed,
            report.size,
        )
    return report


def remove_leftovers(items: Iterable[Item], older: float = _LEFT_AFTER) -> list[Item]:
    """Take away what processes that ended have left half written; what was."""
    oldest = time.time() - older
    return [
        item for item in items if item.kind == LEFTOVER and item.used <= oldest and remove(item)
    ]


def pinned(disk: Disk) -> tuple[frozenset[object], frozenset[str]]:
    """The digests, and the names, that some pin keeps."""
    known = pins(disk)
    return (
        frozenset(digest for pin in known for digest in pin.digests),
        frozenset(name for pin in known for name in pin.names),
    )


def is_pinned(item: Item, digests: Iterable[object], names: Iterable[str]) -> bool:
    """Whether a thing is kept by a pin; what was made from a pinned blob is."""
    if item.kind == NAME:
        return "/".join(item.paths[0].parts[-2:]) in names
    return item.digest in digests


def remove(item: Item, *, forced: bool = False) -> bool:
    """Take a thing away, unless somebody has it (`forced`: even then; they keep what they have
    open); whether it is gone.
    """
    with ExitStack() as stack:
        # The map first: who writes a blob holds its map alone, and must not find the content gone.
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
                    log.warning("%s cannot be evicted: %s", path, error.strerror)
                    return False
    return True


def _lock(path: Path, *, forced: bool) -> int | None:
    """A descriptor with an exclusive lock, -1 where there is no file, None where somebody has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if not forced:
            os.close(descriptor)
            return None
    return descriptor


@contextmanager
def _alone(disk: Disk, wait: float) -> Iterator[bool]:
    """Whether this process is the one that evicts, for the length of the block."""
    descriptor = os.open(disk.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
            time.sleep(0.05)  # flock has no time limit of its own, and this is a worker thread
        else:
            return True


def free_space(disk: Disk) -> int:
    """Bytes that this user may still write to the cache's disk."""
    found = os.statvfs(disk.root)
    return found.f_bavail * found.f_frsize
