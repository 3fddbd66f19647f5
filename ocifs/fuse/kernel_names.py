"""The names that the kernel has cached for a limited time, so that they can be invalidated.

`Operations` records each name that it sends, in the event loop. `invalidate` runs in a worker
thread: the kernel finishes the lookups of a directory first, and the event loop must answer these.

- Names below a digest never change, and are not recorded.
- A name is dropped when its lifetime is over. Of more than MAX_NAMES the oldest is dropped first:
  the kernel then uses it until its lifetime is over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pyfuse3

from ocifs.fuse.inodes import Inode
from ocifs.tree.node import FOREVER

MAX_NAMES = 100_000
# Expired names are dropped whenever so many have been added.
_SWEEP = 2_000


class KernelNames:
    """The recorded names: their directories, and the times until which the kernel may use them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[Inode, bytes], float] = {}
        self._added = 0

    def __len__(self) -> int:
        return len(self._until)

    def record(self, parent: Inode, name: bytes, lifetime: float) -> None:
        """Record a name that is sent to the kernel, or whose absence is."""
        if lifetime == FOREVER or lifetime <= 0:
            return
        key = (parent, name)
        # A key that exists stays at its position: remove it, so that the newest is the last.
        self._until.pop(key, None)
        self._until[key] = self._clock() + lifetime
        self._added += 1
        if self._added >= _SWEEP:
            self._sweep()
        if len(self._until) > MAX_NAMES:
            del self._until[next(iter(self._until))]

    def _sweep(self) -> None:
        self._added = 0
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}

    def take(self) -> list[tuple[Inode, bytes]]:
        """Remove and return the names that the kernel may still use."""
        self._sweep()
        names = list(self._until)
        self._until = {}
        return names


def invalidate(names: list[tuple[Inode, bytes]]) -> None:
    """Make the kernel forget names, and the attributes of their directories.

    Blocks while a directory is in use by a lookup.
    """
    for parent in {parent for parent, _ in names}:
        with contextlib.suppress(OSError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(parent), attr_only=True)
    for parent, name in names:
        # ENOENT: the kernel has forgotten the name by itself.
        with contextlib.suppress(OSError):
            pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), name)
