"""What is kept on the shelf, with a checksum over all of it, so that damage means making it again
and nothing else.

The SHA-256 of the rest in hexadecimal, a line of JSON that says what follows, and that.

Rules that hold here: pure; what is not exactly what `seal` made is None.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

_DIGEST = 64


def seal(head: Mapping[str, object], body: bytes) -> bytes:
    """The bytes to keep. `head` must have a `kind`."""
    rest = json.dumps(head).encode() + b"\n" + body
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def intact(data: bytes) -> bool:
    """Whether some bytes are what `seal` made, of whatever kind."""
    digest, newline, rest = data[:_DIGEST], data[_DIGEST : _DIGEST + 1], data[_DIGEST + 1 :]
    return newline == b"\n" and hashlib.sha256(rest).hexdigest().encode() == digest


def unseal(data: bytes, kind: str) -> tuple[dict[str, object], bytes] | None:
    """The head and the body of something of this kind."""
    if not intact(data):
        return None
    line, _, body = data[_DIGEST + 1 :].partition(b"\n")
    try:
        head = json.loads(line)
    except ValueError:
        return None
    return (head, body) if isinstance(head, dict) and head.get("kind") == kind else None
