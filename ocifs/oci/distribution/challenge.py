"""Parses WWW-Authenticate and the responses of token servers.

The formats are those of RFC 9110, 11.6.1 and of distribution docs/content/spec/auth/token.md.

Rules that hold here:

- Pure.
- A header may have several challenges, and quoted values may have commas.
- The `repr` of a token does not contain its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ocifs.errors import Malformed
from ocifs.oci.descriptor import as_object
from ocifs.oci.distribution.headers import HEADER_BYTES, parse_challenge_list
from ocifs.oci.jsontext import load_json

DEFAULT_EXPIRY = 60.0
"""The lifetime in seconds of a token without `expires_in` (token.md)."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication scheme of a server. Its name and those of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Token:
    """The value for Authorization, and its lifetime in seconds."""

    value: str = field(repr=False)
    expires_in: float = DEFAULT_EXPIRY


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, in order.

    Raises Malformed if the header is too long.
    """
    if len(header) > HEADER_BYTES:
        raise Malformed(f"the www-authenticate header is longer than {HEADER_BYTES} bytes")
    return [Challenge(scheme, parameters) for scheme, parameters in parse_challenge_list(header)]


def read_token(body: bytes, server: str = "the token server") -> Token:
    """The token in a token server's response, under either of its names. Raises Malformed."""
    members = as_object(load_json(body, f"{server}: the answer"), f"{server}: the answer")
    value = members.get("token") or members.get("access_token")
    # Other characters cannot be sent in a header field.
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise Malformed(f"{server}: the answer has no token")
    expires = members.get("expires_in")
    usable = (
        isinstance(expires, int | float) and not isinstance(expires, bool) and 0 < expires < 10**7
    )
    return Token(
        value, float(expires) if usable and isinstance(expires, int | float) else DEFAULT_EXPIRY
    )
