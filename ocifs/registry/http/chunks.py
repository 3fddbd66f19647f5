"""The chunks of an answer's body on their way to h11, followed to its trailers, which are bounded.

`sockets.SocketStream` shows every byte of a chunked body to a `Chunks`, on the event loop. h11 decodes
the chunks. It collects trailers up to 100 KiB and parses them at once, which took 0.16 s.

- Pure, and linear in the bytes that are fed.
- Every byte passes. What is not a chunk ends the looking: h11 refuses the same bytes.
- What counts as a line is what h11 takes for one, or more.
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
    """A chunked body as it arrives (RFC 9112, 7.1). `done`: it has ended, or is not one."""

    def __init__(self) -> None:
        self.done = False
        self._skip = 0  # bytes of a chunk, with the end of its line
        self._line = b""
        self._in_trailers = False
        self._lines = self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Look at the next bytes. Raises httpcore.RemoteProtocolError for too many trailers."""
        at = 0
        while at < len(data) and not self.done:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1
            part = data[at : end or len(data)]
            at += len(part)
            line = self._line = self._line + part if self._line else part
            if len(line) > _LINE_BYTES:
                raise httpcore.RemoteProtocolError(
                    f"a line of a chunk or a trailer of more than {_LINE_BYTES} bytes"
                )
            if end:
                self._line = b""
                self._take(line)

    def _take(self, line: bytes) -> None:
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
        if self._lines > TRAILER_LINES + 1 or self._bytes > TRAILER_BYTES:
            raise httpcore.RemoteProtocolError(
                f"more than {TRAILER_LINES} lines or {TRAILER_BYTES} bytes of trailers"
            )
