"""The stream that a tar is read from: forward only, for a worker thread.

Rules:

- Blocking.
- The bytes that are read for one entry's headers are bounded.
- Skipped content is not held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from ocifs.errors import LimitExceeded, Malformed
from ocifs.settings import Limits


class TarStream:
    """Reads and skips bytes of pieces."""

    def __init__(self, pieces: Iterator[bytes], limits: Limits) -> None:
        self._pieces = pieces
        self._limits = limits
        self._buffer = memoryview(b"")
        self._position = 0
        self._budget = limits.layer_header_bytes

    def new_entry(self) -> None:
        """Reset the bound on the headers of an entry."""
        self._budget = self._limits.layer_header_bytes

    def tell(self) -> int:
        """Return the position in the tar."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read bytes, fewer only at the end. Raises LimitExceeded."""
        if size > self._budget:
            raise LimitExceeded(
                "an entry's headers take more than limits.layer_header_bytes"
                f" ({self._limits.layer_header_bytes})"
            )
        self._budget -= size
        parts: list[bytes] = []
        while size and self._fill():
            part = self._buffer[:size]
            parts.append(bytes(part))
            self._consume(len(part))
            size -= len(part)
        return b"".join(parts)

    def seek(self, position: int) -> None:
        """Skip bytes up to a position, or to the end. Raises Malformed for an earlier position."""
        if position < self._position:
            raise Malformed("an entry of the tar has a negative size")
        while self._position < position and self._fill():
            self._consume(min(len(self._buffer), position - self._position))

    def drain(self) -> int:
        """Skip the rest; return the size of the tar."""
        while self._fill():
            self._consume(len(self._buffer))
        return self._position

    def peek(self, size: int) -> bytes:
        """Return the next bytes without consuming them, fewer at the end of a piece."""
        self._fill()
        return bytes(self._buffer[:size])

    def skip(self, size: int) -> None:
        """Consume bytes that `peek` returned."""
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
