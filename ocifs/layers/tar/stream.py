"""The stream that a tar is read from: forward only.

Rules that hold here: blocking, for a worker thread; what is read of one entry's headers is bounded,
what is passed over is not kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ocifs.errors import LimitExceeded, Malformed
from ocifs.settings import Limits


class TarStream:
    """The file that tarfile reads: forward only; what it reads of one entry's headers is bounded,
    what it seeks over is not kept.
    """

    def __init__(self, pieces: Iterator[bytes], limits: Limits) -> None:
        self._pieces = pieces
        self._limits = limits
        self._buffer = memoryview(b"")
        self._position = 0
        self._budget = limits.layer_header_bytes

    def new_entry(self) -> None:
        self._budget = self._limits.layer_header_bytes

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._budget:
            raise LimitExceeded(
                f"an entry's headers take more than limits.layer_header_bytes ({self._limits.layer_header_bytes})"
            )
        self._budget -= size
        parts: list[bytes] = []
        while size and self._fill():
            part = self._buffer[:size]
            parts.append(bytes(part))
            self._consume(len(part))
            size -= len(part)
        return b"".join(parts)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise Malformed("an entry of the tar has a negative size")
        while self._position < position and self._fill():
            self._consume(min(len(self._buffer), position - self._position))
        return self._position

    def drain(self) -> int:
        """Read what is left; gives the size of the whole."""
        while self._fill():
            self._consume(len(self._buffer))
        return self._position

    def peek(self, size: int) -> bytes:
        """The next bytes, not taken; fewer where the piece that is here ends, or the stream."""
        self._fill()
        return bytes(self._buffer[:size])

    def skip(self, size: int) -> None:
        """Pass over bytes that `peek` gave."""
        self._consume(size)

    def _fill(self) -> bool:
        while not self._buffer:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._buffer = memoryview(piece)
        return True

    def _consume(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._position += count
