"""How much to fetch at a time: little for those who jump about, more and more for those who read on.

Rules that hold here: pure; several readers of one blob are told apart by where each is expected to go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocifs.settings import KIB, MIB

FIRST = 128 * KIB
LARGEST = 128 * MIB  # never more than was read before; a request costs docker-registry 8 ms, whatever its length
# The kernel sends several requests of one reader at a time, and not always in order.
SLACK = 4 * MIB
READERS = 64


@dataclass(slots=True)
class Stream:
    """One reader who reads on: where it is expected next, and how much to fetch for it at a time."""

    end: int
    window: int = FIRST

    def grow(self) -> int:
        """The window to fetch now; the next one is twice as large."""
        window = self.window
        self.window = min(LARGEST, window * 2)
        return window


class ReadAhead:
    """The readers of one blob."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []

    def stream(self, offset: int, length: int) -> Stream:
        """The reader that a read belongs to: one who is expected about here, else a new one."""
        near = [stream for stream in self._streams if abs(stream.end - offset) <= min(SLACK, stream.window)]
        if near:
            found = min(near, key=lambda stream: abs(stream.end - offset))
            found.end = max(found.end, offset + length)
        else:
            found = Stream(offset + length)
            self._streams.append(found)
            del self._streams[:-READERS]
        return found
