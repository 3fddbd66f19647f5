"""One credential, as a value.

Rules that hold here: pure; the secret is in no repr.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

CredentialKind: TypeAlias = Literal["password", "identity", "registry"]


@dataclass(frozen=True, slots=True)
class Credential:
    """Who a registry is told that we are.

    `kind`: the secret is a `password`, an `identity` token to be exchanged for others (OAuth2), or
    a `registry` token, sent as it is.
    """

    username: str
    secret: str = field(repr=False)
    kind: CredentialKind = "password"

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()
