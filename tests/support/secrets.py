"""The secrets of the tests, which the end of a run searches for in all logs and output.

Rules that hold here:
- A secret is registered when it is created.
- It is searched for as it is, in Base64, and quoted as in a URL.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

_SHORTEST = 6  # a shorter secret would match unrelated text
_kept: set[str] = set()


def keep_secret(*secrets: str) -> str:
    """Register secrets, and return the first of them."""
    _kept.update(secret for secret in secrets if len(secret) >= _SHORTEST)
    return secrets[0]


def leaks(text: str) -> list[str]:
    """The secrets in a text, in any of their encodings."""
    return sorted(secret for secret in _kept if any(form in text for form in _forms(secret)))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    packed = base64.b64encode(secret.encode()).decode().rstrip("=")
    yield packed
    yield packed.translate(str.maketrans("+/", "-_"))
