"""Every secret that the suite uses, so that its end can look for them in whatever was logged or
printed.

Rules that hold here: a secret is registered where it is made; it is looked for as it is, in Base64
and as a part of an address.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

_SHORTEST = 6  # a shorter one would be found where it is none
_kept: set[str] = set()


def keep_secret(*secrets: str) -> str:
    """Register secrets; the first of them, for the place where it is made."""
    _kept.update(secret for secret in secrets if len(secret) >= _SHORTEST)
    return secrets[0]


def leaks(text: str) -> list[str]:
    """The secrets that a text holds, in any of the forms that they travel in."""
    return sorted(secret for secret in _kept if any(form in text for form in _forms(secret)))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    packed = base64.b64encode(secret.encode()).decode().rstrip("=")
    yield packed
    yield packed.translate(str.maketrans("+/", "-_"))
