"""How much to fetch at a time: little for those who jump about, more and more for those who read
on.

What is fetched ahead may be in vain. As much as comes in the time of one more request costs hardly
anything, and is fetched at once; beyond that, who reads on gets a part of what it has read so far.
A program that is mapped into memory jumps about within a neighbourhood: it goes forward, and leaves
out what it does not need. Who read less than `DENSE` of what lies behind gets less and less
(decision 0115).

Rules that hold here: pure; several readers of one blob are told apart by where each is expected to
go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocifs.settings import KIB, MIB

FIRST = 128 * KIB
LARGEST = (
    128 * MIB
)  # never more than was read before; a request costs docker-registry 8 ms, whatever its length
# The kernel sends several requests of one reader at a time, and not always in order.
SLACK = 4 * MIB
READERS = 64
DENSE = 0.75
PART = 3  # of what was read in a row
_MEMORY = 8 * MIB  # what was read longer ago than so many bytes counts half, and half of that
_FORGETTING = 0.9


class SourceSpeed:
    """How fast a source is: the seconds until an answer begins, and the bytes a second from there."""

    def __init__(self) -> None:
        self._waits = self._answers = self._bytes = self._seconds = 0.0

    def note(self, wait: float, count: int, seconds: float) -> None:
        """An answer began after `wait` seconds; its `count` bytes took `seconds` more."""
        for name, value in (
            ("_waits", wait),
            ("_answers", 1.0),
            ("_bytes", count),
            ("_seconds", seconds),
        ):
            setattr(self, name, getattr(self, name) * _FORGETTING + value)

    @property
    def worth(self) -> int:
        """The bytes that come in the time of one more request; 0 where nothing is known."""
        if not self._answers or self._seconds <= 0:
            return 0
        return min(LARGEST, int(self._waits / self._answers * self._bytes / self._seconds))


@dataclass(slots=True)
class ReaderState:
    """One reader who reads on: where it is expected next, and how much to fetch for it at a time.

    `read` of the last `passed` bytes before `end` were asked for. `row`: the bytes read since it
    last left something out.
    """

    end: int
    read: int
    passed: int
    streak: int
    window: int = FIRST

    def grow(self, worth: int) -> int:
        """The window to fetch now.

        The next is twice as large, but no larger than is worth it; or half where much was left out.
        """
        window = self.window
        if self.read < DENSE * self.passed:
            self.streak = 0
            self.window = max(FIRST, window // 2)
        else:
            self.window = max(FIRST, min(LARGEST, window * 2, max(worth, self.streak // PART)))
        return window

    def note(self, offset: int, length: int) -> None:
        """It asked for [offset, offset + length)."""
        end = max(self.end, offset + length)
        self.passed += end - self.end
        self.read = min(self.passed, self.read + length)
        self.end = end
        self.streak += length
        while self.passed > _MEMORY:
            self.passed //= 2
            self.read //= 2


class ReadAhead:
    """The readers of one blob."""

    def __init__(self) -> None:
        self._streams: list[ReaderState] = []

    def stream(self, offset: int, length: int, toward: int = 0) -> ReaderState:
        """The reader that a read belongs to: one who is expected about here, else a new one.

        `toward`: where it says that it goes on to.
        """
        near = [
            stream
            for stream in self._streams
            if abs(stream.end - offset) <= min(SLACK, stream.window)
        ]
        if near:
            found = min(near, key=lambda stream: abs(stream.end - offset))
            found.note(offset, length)
        else:
            found = ReaderState(offset + length, length, length, length)
            self._streams.append(found)
            del self._streams[:-READERS]
        if toward:
            found.window = max(found.window, min(LARGEST, toward - offset))
        return found
