"""Extracts a server's error message from the body of a response.

`responses` calls this module for registries, and the token client for token servers.

The formats are those of the distribution-spec ("Error Codes"), OAuth 2 (RFC 6749, 5.2), problem
details (RFC 9457), Docker Hub, Spring and Go services, and plain text.

Rules that hold here:

- Pure. The caller bounds the body (limits.error_bytes).
- The text is untrusted: the result is one printable line of at most LENGTH characters. HTML and XML
  are not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

LENGTH = 200
_DEPTH = 4
# Members that contain a text or nested objects, in the order of the message.
_MEMBERS = (
    "code",
    "error",
    "title",
    "message",
    "error_description",
    "detail",
    "details",
    "reason",
    "errors",
)


def error_text(headers: Mapping[str, str], body: bytes) -> str:
    """The message in an error's body, or "" if it has none that a user could read."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return _plain(headers, body)
    texts = list(dict.fromkeys(_texts(value, _DEPTH)))
    return clean("; ".join(texts))


def error_codes(body: bytes) -> frozenset[str]:
    """The codes in an error's body (distribution-spec "Error Codes")."""
    try:
        return frozenset(str(error.get("code")) for error in json.loads(body)["errors"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()


def clean(text: str) -> str:
    """An untrusted text as one line of bounded length."""
    return "".join(c if c.isprintable() else " " for c in text[:LENGTH])


def _texts(value: object, depth: int) -> Iterator[str]:
    """The texts in a JSON value.

    An object with a code or a message is one text: `CODE: message`.
    """
    if isinstance(value, str) and value.strip():
        yield value.strip()
    elif isinstance(value, list) and depth:
        for item in value[:LENGTH]:
            yield from _texts(item, depth - 1)
    elif isinstance(value, dict) and depth:
        members = [
            "; ".join(dict.fromkeys(_texts(value.get(name), depth - 1))) for name in _MEMBERS
        ]
        parts = dict.fromkeys(part for part in members if part)
        if parts:
            yield ": ".join(parts)


def _plain(headers: Mapping[str, str], body: bytes) -> str:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "text/plain"):
        return ""
    try:
        # A character has at most 4 bytes in UTF-8. The cut may split one, which is then ignored.
        text = body[: 4 * LENGTH].decode(errors="strict" if len(body) <= 4 * LENGTH else "ignore")
    except UnicodeDecodeError:
        return ""
    text = " ".join(text.split())
    return "" if text.startswith(("<", "{", "[")) else clean(text)
