"""Bounds the trailers of a chunked body on its way to h11.

`sockets.SocketStream` passes every byte of a chunked body to a `Chunks`, on the event loop. h11
decodes the chunks. It collects up to 100 KiB of trailers and parses them at once, which took
0.16 s.

- Pure, and linear in the bytes that are fed.
- No byte is changed. An invalid chunk ends the inspection: h11 rejects the same bytes.
- At least the lines that h11 recognises are counted.
"""

from __future__ import annotations

import re

import httpcore

from ocifs.settings import KIB

TRAILER_LINES, TRAILER_BYTES = 64, 8 * KIB
_LINE_BYTES = 8 * KIB  # of a chunk's header, with extensions
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,20}")
_ENDS = (b"\n", b"\r\n")


class Chunks:
    """A chunked body as it arrives (RFC 9112, 7.1). `done`: it has ended, or is invalid."""

    def __init__(self) -> None:
        self.done = False
        self._skip = 0  # remaining bytes of a chunk, including the end of its line
        self._line = b""
        self._in_trailers = False
        self._lines = self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Inspect the next bytes. Raises httpcore.RemoteProtocolError for too many trailers."""
        position = 0
        while position < len(data) and not self.done:
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            end = data.find(b"\n", position) + 1
            part = data[position : end or len(data)]
            position += len(part)
            line = self._line = self._line + part if self._line else part
            if len(line) > _LINE_BYTES:
                raise httpcore.RemoteProtocolError(
                    f"a line of a chunk or trailer is longer than {_LINE_BYTES} bytes"
                )
            if end:
                self._line = b""
                self._parse(line)

    def _parse(self, line: bytes) -> None:
        if not self._in_trailers:
            size = _SIZE.match(line)
            self.done = size is None
            self._skip = int(size[0], 16) if size else 0
            self._in_trailers = not self._skip
            self._skip += 2 if self._skip else 0
            return
        self.done = line in _ENDS
        self._lines += 1
        self._bytes += len(line)
        # The empty line that ends the trailers is counted as well.
        if self._lines > TRAILER_LINES + 1 or self._bytes > TRAILER_BYTES:
            raise httpcore.RemoteProtocolError(
                f"more than {TRAILER_LINES} lines or {TRAILER_BYTES} bytes of trailers"
            )
