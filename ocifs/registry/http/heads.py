"""Heads of answers on their way to h11: bounded, and without the lines that h11 refuses and other
clients pass over.

`sockets.SocketStream` feeds every answer through a `Head`, on the event loop. h11 parses all that comes
after.

- Pure, and linear in the bytes that are fed.
- A line with an illegal field name, such as `X Y: 1`, is dropped with its continuations. Space
  between a legal name and its colon is removed (RFC 9112, 5.1). Every other byte passes as it is.
- Interim answers (1xx) belong to the head. All lines count together.
- What is not HTTP passes at once: the bytes of a proxy's own protocol, or of a server that h11
  refuses.
"""

from __future__ import annotations

import re

import httpcore

from ocifs.settings import KIB

HEAD_LINES = 256  # of an answer
_LINE_BYTES = 64 * KIB  # held to see where a line ends; h11 refuses longer ones
_VERSION = b"HTTP/"
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:")
_INTERIM = re.compile(rb"HTTP/1\.. 1(?!01)")


class Head:
    """The head of one answer as it arrives.

    `done`: the rest passes as it is. `complete`: the head was read to its end. `chunked`: its body
    comes in chunks. `body`: how many bytes behind the head passed with its last ones.
    """

    def __init__(self) -> None:
        self.done = self.complete = self.chunked = False
        self.body = 0
        self._held = bytearray()
        self._lines = 0
        self._at_start = True
        self._interim = False
        self._dropping = False

    def feed(self, data: bytes) -> bytes:
        """The bytes that may pass now.

        Raises httpcore.RemoteProtocolError for a head of too many lines.
        """
        if self.done:
            return data
        seen = len(self._held)
        self._held += data
        start = bytes(self._held[: len(_VERSION)])
        if self._at_start and start != _VERSION[: len(start)]:
            self.done = True
            return self.rest()
        passed, at = [], 0
        while not self.done and (end := self._held.find(b"\n", max(at, seen))) >= 0:
            passed.append(self._line(bytes(self._held[at : end + 1])))
            at = end + 1
        del self._held[:at]
        if self.done or len(self._held) > _LINE_BYTES:
            self.done = True
            passed.append(self.rest())
            self.body = len(passed[-1])
        return b"".join(passed)

    def rest(self) -> bytes:
        """What is still held, at the end of the connection."""
        rest = bytes(self._held)
        self._held.clear()
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
            self.chunked = self.chunked and self.done
            self._at_start = True
        else:
            return self._field(line)
        return line

    def _field(self, line: bytes) -> bytes:
        if line[:1] in b" \t":  # belongs to the line before
            return b"" if self._dropping else line
        field = _FIELD.match(line)
        self._dropping = field is None and b":" in line
        if self._dropping:
            return b""
        if field is not None and field[1].lower() == b"transfer-encoding":
            self.chunked = True  # h11 knows no other coding
        return line if field is None else field[1] + line[field.end() - 1 :]
