"""Which blocks of an open file were compared with their checksums a moment ago.

Called in the event loop, by the reads of a blob (`reads.py`). A program that reads a few bytes of a
block again and again would otherwise read and check all of the block each time.

A block that was checked may be served without another check under these conditions:

- The file has not changed since: its size and its ctime are the same. No program can set a ctime.
- The check was at most RECENT seconds ago, so that decay of the disk is still noticed.
- The ctime was older than a tick of the clock. Otherwise a later change could have the same one.
"""

from __future__ import annotations

import os
import time

import trio

RECENT = 30.0
"""Seconds for which a check is valid."""

# File systems take times from a clock that advances every 1 to 10 ms. Some store whole seconds, or
# even ones.
_SECOND_NS = 1_000_000_000
_TICK_NS, _COARSE_TICK_NS = _SECOND_NS // 10, 2 * _SECOND_NS

Stamp = tuple[int, int] | None
"""The size and ctime of a file, or None if the checks of this moment cannot be remembered."""


class CheckedBlocks:
    """The blocks of one open file that were checked."""

    def __init__(self, descriptor: int, count: int) -> None:
        self._descriptor = descriptor
        self._checked = bytearray(count)
        self._stamp: Stamp = None
        self._until = 0.0

    def stamp(self) -> Stamp:
        """The state of the file now. Call it before the bytes are read that are checked."""
        found = self._status()
        return None if found is None or is_recent(found[1], time.time_ns()) else found

    def add(self, first: int, stop: int, stamp: Stamp) -> None:
        """Remember that the blocks [first, stop) were checked after this stamp was taken."""
        if stamp is None:
            return
        now = trio.current_time()
        if stamp != self._stamp or now >= self._until:
            self._checked = bytearray(len(self._checked))
            self._stamp = stamp
            self._until = now + RECENT
        self._checked[first:stop] = b"\1" * (stop - first)

    def includes(self, first: int, stop: int) -> bool:
        """Whether the blocks [first, stop) were checked, if the file is unchanged."""
        return 0 not in self._checked[first:stop]

    def are_valid(self, first: int, stop: int) -> bool:
        """Whether the blocks [first, stop) were checked, and bytes that were just read from them
        may be served.
        """
        if not self.includes(first, stop) or trio.current_time() >= self._until:
            return False
        return self._status() == self._stamp

    def _status(self) -> Stamp:
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            return None
        return status.st_size, status.st_ctime_ns


def is_recent(ctime_ns: int, now_ns: int) -> bool:
    """Whether a change that is still to come may get this ctime."""
    is_coarse = ctime_ns % _SECOND_NS == 0
    return now_ns - ctime_ns < (_COARSE_TICK_NS if is_coarse else _TICK_NS)
