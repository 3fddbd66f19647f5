"""A request to a registry, as a value.

Made by `RegistryClient`, the lists, the referrers and the blob streams; sent by `Connection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ocifs.oci.distribution.endpoints import endpoint_of


@dataclass(frozen=True, slots=True)
class RegistryRequest:
    """A request to an endpoint of the distribution specification.

    - `allow`: the expected statuses. Any other status is an error.
    - `limit`: the largest body in bytes, if the body is read as a whole.
    - `is_repeated`: it is sent repeatedly, so that a response with an ETag is worth storing.
    - `may_fetch_token`: whether a token is fetched for it if the registry requires one.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    allow: frozenset[int] = frozenset({200})
    limit: int = 0
    is_repeated: bool = False
    may_fetch_token: bool = True

    @property
    def kind(self) -> str:
        """The kind that rate limits and Retry-After apply to: the method and the endpoint."""
        return f"{self.method} {endpoint_of(self.target)}"

    @property
    def path(self) -> str:
        """The target without its query, for messages."""
        return self.target.partition("?")[0]

    @property
    def has_reusable_redirect(self) -> bool:
        """Whether its redirect is worth remembering: a blob is fetched in many parts."""
        return self.method == "GET" and "/blobs/" in self.target
