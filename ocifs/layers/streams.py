"""Input for a sequence of decoders: gzip members or zstd frames in one layer, chunk or table.

A decoder at the end of its stream returns a copy of the input behind it. With 1 MiB of input for
each stream of ten bytes, nearly all time would be spent on these copies. A stream is therefore fed
with little input at first, and with more as it continues.

`indexing/decompress.py`, `spans/checkpoints.py` and `zstd.py` use this in worker threads. A
`StreamInput` belongs to one thread.

Rules:

- Linear in the length of the input, for any number of streams.
- Checks for cancellation every few streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ocifs.concurrency import check_cancelled
from ocifs.settings import KIB

_FIRST_PART, _MAX_PART = 512, 64 * KIB
_CHECK_INTERVAL = 1 << 8  # streams between two checks for cancellation
_ZEROS = re.compile(rb"\0*")


def _nothing() -> bytes:
    return b""


class StreamInput:
    """The input. `offset`: the number of bytes that were taken.

    `more` returns further bytes, or none at the end.
    """

    def __init__(self, first: bytes, more: Callable[[], bytes] = _nothing) -> None:
        self._piece = first
        self._position = 0
        self._more = more
        self._size = _FIRST_PART
        self._streams = 0
        self.offset = 0

    def begin(self) -> None:
        """Start a stream."""
        self._size = _FIRST_PART
        self._streams += 1
        if not self._streams % _CHECK_INTERVAL:
            check_cancelled()

    def head(self, size: int) -> bytes:
        """Skip padding, and return the bytes behind it without taking them."""
        while True:
            zeros = _ZEROS.match(self._piece, self._position)
            assert zeros is not None
            self._advance(zeros.end() - self._position)
            if len(self._piece) - self._position >= size or not (more := self._more()):
                return self._piece[self._position : self._position + size]
            self._piece, self._position = self._piece[self._position :] + more, 0

    def take(self) -> bytes:
        """Take the next bytes of the stream, none at the end."""
        if self._position == len(self._piece):
            self._piece, self._position = self._more(), 0
        part = self._piece[self._position : self._position + self._size]
        self._size = min(2 * self._size, _MAX_PART)
        self._advance(len(part))
        return part

    def give_back(self, rest: bytes) -> None:
        """Return the end of the last part: it belongs to the next stream."""
        self._advance(-len(rest))

    def _advance(self, count: int) -> None:
        self._position += count
        self.offset += count
