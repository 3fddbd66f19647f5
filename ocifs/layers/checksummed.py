"""The format of derived files: a checksum over everything, a head and a body.

    SHA-256 of the rest, in hexadecimal
    one line of JSON with the kind of the file and its fields
    the body

Rules:

- Pure.
- Data that `seal` did not return is None: a damaged file is created again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

_DIGEST_LENGTH = 64


def seal(head: Mapping[str, object], body: bytes) -> bytes:
    """Return the content of a file. `head` must contain a `kind`."""
    rest = json.dumps(head).encode() + b"\n" + body
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def intact(data: bytes) -> bool:
    """Whether the checksum of a file of any kind matches."""
    digest, rest = data[:_DIGEST_LENGTH], data[_DIGEST_LENGTH + 1 :]
    newline = data[_DIGEST_LENGTH : _DIGEST_LENGTH + 1]
    return newline == b"\n" and hashlib.sha256(rest).hexdigest().encode() == digest


def unseal(data: bytes, kind: str) -> tuple[dict[str, object], bytes] | None:
    """Return the head and the body of a file of this kind, or None."""
    if not intact(data):
        return None
    line, _, body = data[_DIGEST_LENGTH + 1 :].partition(b"\n")
    try:
        head = json.loads(line)
    except ValueError:
        return None
    return (head, body) if isinstance(head, dict) and head.get("kind") == kind else None
