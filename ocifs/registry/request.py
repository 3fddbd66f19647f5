"""A question to a registry, as `Connection` sends it.

Made by whatever asks: lists, referrers, blobs, admission.

Rules that hold here: a value without behaviour; it knows what was asked and not what came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ocifs.oci.distribution.endpoints import endpoint_of


@dataclass(frozen=True, slots=True)
class RegistryRequest:
    """What is asked: any status not in `allow` is an error.

    `limit`: bytes of the answer's body, where it is taken whole.

    `changes`: it will be asked again, so what came with an ETag is kept. `tokens`: whether it is
    worth a token.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    allow: frozenset[int] = frozenset({200})
    limit: int = 0
    changes: bool = False
    tokens: bool = True

    @property
    def kind(self) -> str:
        """What a registry's limits are about: questions with this method to this endpoint."""
        return f"{self.method} {endpoint_of(self.target)}"

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether a redirect of it is worth remembering: content by digest, fetched in many parts."""
        return self.method == "GET" and "/blobs/" in self.target
