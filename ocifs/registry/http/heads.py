"""Heads of responses on their way to h11: bounded, and without lines that only h11 rejects.

`sockets.SocketStream` passes every response through a `Head`, on the event loop. h11 parses the
result.

- Pure, and linear in the bytes that are fed.
- A line with an illegal field name, such as `X Y: 1`, is dropped with its continuations. Space
  between a legal name and its colon is removed (RFC 9112, 5.1). Every other byte is unchanged.
- Interim responses (1xx) belong to the head. All lines count together.
- Bytes that are not HTTP pass at once: a proxy's own protocol, or bytes that h11 rejects.
"""

from __future__ import annotations

import re

import httpcore

from ocifs.settings import KIB

HEAD_LINES = 256  # of a response
_LINE_BYTES = 64 * KIB  # buffered to find the end of a line; h11 rejects longer ones
_VERSION = b"HTTP/"
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:")
# 101 is excluded: after it, the connection belongs to another protocol (RFC 9110, 15.2.2).
_INTERIM = re.compile(rb"HTTP/1\.. 1(?!01)")


class Head:
    """The head of one response as it arrives.

    `done`: the rest passes unchanged. `complete`: the end of the head was seen. `chunked`: the body
    is chunked. `body`: the number of bytes of the body at the end of the last result.
    """

    def __init__(self) -> None:
        self.done = self.complete = self.chunked = False
        self.body = 0
        self._buffer = bytearray()
        self._lines = 0
        self._at_start = True
        self._interim = False
        self._dropping = False

    def feed(self, data: bytes) -> bytes:
        """The bytes that can be passed on.

        Raises httpcore.RemoteProtocolError for a head with too many lines.
        """
        if self.done:
            return data
        seen = len(self._buffer)
        self._buffer += data
        start = bytes(self._buffer[: len(_VERSION)])
        if self._at_start and start != _VERSION[: len(start)]:
            self.done = True
            return self.rest()
        passed, position = [], 0
        # The search skips bytes of earlier reads. Otherwise a line in one-byte reads takes
        # quadratic time.
        while not self.done and (end := self._buffer.find(b"\n", max(position, seen))) >= 0:
            passed.append(self._line(bytes(self._buffer[position : end + 1])))
            position = end + 1
        del self._buffer[:position]
        if self.done or len(self._buffer) > _LINE_BYTES:
            self.done = True
            passed.append(self.rest())
            self.body = len(passed[-1])
        return b"".join(passed)

    def rest(self) -> bytes:
        """The buffered bytes, at the end of the connection."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _line(self, line: bytes) -> bytes:
        self._lines += 1
        if self._lines > HEAD_LINES:
            raise httpcore.RemoteProtocolError(f"more than {HEAD_LINES} lines of headers")
        if self._at_start:
            self._at_start = False
            self._interim = _INTERIM.match(line) is not None
        elif not line.strip(b"\r\n"):
            self.done = self.complete = not self._interim
            # A field of an interim response is not about the body.
            self.chunked = self.chunked and self.done
            self._at_start = True
        else:
            return self._field(line)
        return line

    def _field(self, line: bytes) -> bytes:
        if line[:1] in b" \t":  # a continuation of the previous line
            return b"" if self._dropping else line
        field = _FIELD.match(line)
        self._dropping = field is None and b":" in line
        if self._dropping:
            return b""
        if field is not None and field[1].lower() == b"transfer-encoding":
            self.chunked = True  # h11 supports no other coding
        return line if field is None else field[1] + line[field.end() - 1 :]
