"""Responses with an ETag, so that a repeated request can be conditional (RFC 9110, 13.1.2).

`Connection` calls this module from the task that sends a request. State: the last response for each
target, in at most `max_bytes` bytes of bodies. The least recently used ones are dropped.

- Only requests that are sent repeatedly use the store, such as the pages of a list.
- A stored response is returned only after the registry has answered 304 to this request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cachetools import LRUCache


@dataclass(frozen=True, slots=True)
class RegistryResponse:
    """A response with its complete body. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class EtagStore:
    """Responses with an ETag, by target."""

    def __init__(self, max_bytes: int) -> None:
        # An empty body counts as a byte, so that the number of responses is bounded as well.
        self._responses: LRUCache[str, RegistryResponse] = LRUCache(
            max_bytes, getsizeof=lambda response: max(1, len(response.body))
        )

    def condition(self, target: str) -> dict[str, str]:
        """The header that makes a request conditional; empty without a stored response."""
        stored = self._responses.get(target)
        return {"If-None-Match": stored.headers["etag"]} if stored else {}

    def update(self, target: str, response: RegistryResponse) -> RegistryResponse:
        """Store a response, or return the stored one for a 304."""
        # Also removes an outdated response if the new one has no ETag.
        stored = self._responses.pop(target, None)
        if response.status == 304 and stored is not None:
            response = stored
        if (
            response.status == 200
            and response.headers.get("etag")
            and len(response.body) <= self._responses.maxsize
        ):
            self._responses[target] = response
        return response
