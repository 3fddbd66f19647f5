"""One credential, as a value. Pure. The secret is in no repr."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

CredentialKind: TypeAlias = Literal["password", "identity", "registry"]


@dataclass(frozen=True, slots=True)
class Credential:
    """The identity presented to a registry.

    `kind` is the kind of the secret: a `password`, an `identity` token that a token server
    exchanges for others (OAuth2), or a `registry` token, which is sent unchanged.
    `origin` is its source, for messages. Equal credentials of two sources are the same.
    """

    username: str
    secret: str = field(repr=False)
    kind: CredentialKind = "password"
    origin: str = field(default="", compare=False)

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()
