"""The input of decoders that follow one another: gzip members, zstd frames and their like in one
layer, chunk or table.

A decoder that comes to the end of its stream returns a copy of the input behind it. With a mebibyte
of input and a stream of ten bytes, that copy is all the work there is. So a stream gets little
input at first, and more as it goes on.

`inflate`, `seekable` and `zstd` use this in worker threads. A `StreamInput` belongs to one thread.

Rules that hold here:

- linear in the length of the input, however many streams it has
- looks for cancellation every few streams
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ocifs.concurrency import check_cancelled
from ocifs.settings import KIB

_FIRST, _MOST = 512, 64 * KIB
_OFTEN = 1 << 8  # streams between two looks for cancellation
_ZEROS = re.compile(rb"\0*")


def _nothing() -> bytes:
    return b""


class StreamInput:
    """Bytes for one decoder after the other.

    `place`: how many were taken; `more`: gives further bytes, none at the end.
    """

    def __init__(self, first: bytes, more: Callable[[], bytes] = _nothing) -> None:
        self._piece = first
        self._at = 0
        self._more = more
        self._size = _FIRST
        self._streams = 0
        self.place = 0

    def begin(self) -> None:
        """A stream begins."""
        self._size = _FIRST
        self._streams += 1
        if not self._streams % _OFTEN:
            check_cancelled()

    def head(self, size: int) -> bytes:
        """The first bytes behind padding, which is passed over; they are not taken."""
        while True:
            zeros = _ZEROS.match(self._piece, self._at)
            assert zeros is not None
            self._advance(zeros.end() - self._at)
            if len(self._piece) - self._at >= size or not (more := self._more()):
                return self._piece[self._at : self._at + size]
            self._piece, self._at = self._piece[self._at :] + more, 0

    def take(self) -> bytes:
        """The next bytes of the stream, none at the end."""
        if self._at == len(self._piece):
            self._piece, self._at = self._more(), 0
        part = self._piece[self._at : self._at + self._size]
        self._size = min(2 * self._size, _MOST)
        self._advance(len(part))
        return part

    def give_back(self, rest: bytes) -> None:
        """The end of the part that was taken last belongs to the next stream."""
        self._advance(-len(rest))

    def _advance(self, count: int) -> None:
        self._at += count
        self.place += count
