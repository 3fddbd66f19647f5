"""How much to fetch at a time: little for random reads, more and more for sequential ones.

Bytes that are fetched ahead may never be read. As many as arrive in the time of one more request
cost almost nothing, and are always fetched. Beyond that, a sequential reader gets a share of the
bytes that it has read in a row.

A program that is mapped into memory moves forward within a neighbourhood, and skips parts of it. A
reader that has read less than `DENSE` of the bytes behind it gets less and less (decision 0115).

Pure, and used in the event loop. Several readers of one blob are distinguished by the offsets at
which each is expected next.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocifs.settings import KIB, MIB

FIRST = 128 * KIB
# A larger one would save little: a request of any length costs docker-registry 8 ms.
LARGEST = 128 * MIB
# The kernel sends several requests of one reader at a time, and not always in order.
SLACK = 4 * MIB
READERS = 64
DENSE = 0.75
PART = 3  # the share of a streak that is fetched ahead is one in three
_MEMORY = 8 * MIB  # bytes after which earlier reads count half
_FORGETTING = 0.9


class SourceSpeed:
    """The latency and the throughput of a source, averaged over its last answers."""

    def __init__(self) -> None:
        self._waits = self._answers = self._bytes = self._seconds = 0.0

    def note(self, wait: float, count: int, seconds: float) -> None:
        """An answer began after `wait` seconds; its `count` bytes took `seconds` more."""
        self._waits = self._waits * _FORGETTING + wait
        self._answers = self._answers * _FORGETTING + 1
        self._bytes = self._bytes * _FORGETTING + count
        self._seconds = self._seconds * _FORGETTING + seconds

    @property
    def worth(self) -> int:
        """The bytes that arrive in the time of one more request, or 0 before the first answer."""
        if not self._answers or self._seconds <= 0:
            return 0
        return min(LARGEST, int(self._waits / self._answers * self._bytes / self._seconds))


@dataclass(slots=True, eq=False)
class ReaderState:
    """One reader: where its next read is expected, and how much to fetch for it at a time.

    It has read `read` of the last `passed` bytes before `end`, and `streak` bytes since it last
    skipped much. `toward` is the offset up to which it has announced to read, or 0. It waits
    for the missing block at `waits_at`.
    """

    end: int
    read: int
    passed: int
    streak: int
    window: int = FIRST
    toward: int = 0
    waits_at: int = 0

    @property
    def position(self) -> int:
        """The offset from which it needs bytes: `end`, or a missing block that it waits for."""
        return max(self.end, self.waits_at)

    def grow(self, worth: int) -> int:
        """The window to fetch now.

        The next one is twice as large, at most `worth` or a share of the streak. It is half as
        large if the reader has skipped much.
        """
        window = self.window
        if self.read < DENSE * self.passed:
            self.streak = 0
            self.window = max(FIRST, window // 2)
        else:
            self.window = max(FIRST, min(LARGEST, window * 2, max(worth, self.streak // PART)))
        return window

    def note(self, offset: int, length: int) -> None:
        """It reads [offset, offset + length)."""
        end = max(self.end, offset + length)
        self.passed += end - self.end
        self.read = min(self.passed, self.read + length)
        self.end = end
        self.streak += length
        while self.passed > _MEMORY:
            self.passed //= 2
            self.read //= 2


class ReadAhead:
    """The readers of one blob, at most READERS of them; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._readers: list[ReaderState] = []

    def reader(self, offset: int, length: int, toward: int = 0) -> ReaderState:
        """The reader that is expected at about this offset, or a new one.

        `toward`: the offset up to which it is going to read.
        """
        near = [
            reader
            for reader in self._readers
            if abs(reader.end - offset) <= min(SLACK, reader.window)
        ]
        if near:
            reader = min(near, key=lambda state: abs(state.end - offset))
            reader.note(offset, length)
        else:
            reader = ReaderState(offset + length, length, length, length)
            self._readers.append(reader)
            del self._readers[:-READERS]
        reader.toward = toward
        if toward:
            # The caller announced this range, so the window need not grow to it step by step.
            reader.window = max(reader.window, min(LARGEST, toward - offset))
        return reader
