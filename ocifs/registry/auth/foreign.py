"""Authorization for the registries that a registry redirects to (lscr.io, Scarf and other fronts).

`Connection` calls this module for each request to another origin. State: an `Authenticator` for
each origin that has sent a challenge, for the life of the connection.

- A host that sends no challenge gets no credentials: it is storage.
- The credentials are those stored for that host. They go to it and to its token server alone, and
  never without TLS.
- No header of the first registry is sent to another one, and none of theirs comes back.
- The address of a token server is checked by the same rules as for the first registry.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
from cachetools import LRUCache

from ocifs.errors import AccessDenied
from ocifs.oci.distribution.challenge import parse_challenges
from ocifs.oci.distribution.endpoints import scope_of
from ocifs.oci.reference import normal_host
from ocifs.registry.auth.authenticator import Authenticator
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.http.origins import WebOrigin, origin_in

_REGISTRIES = 8  # that one registry redirects to


class ForeignAuth:
    """Authorization for all origins except the registry's own."""

    def __init__(
        self, client: httpx.AsyncClient, sources: CredentialSources, redirects: int
    ) -> None:
        self._client = client
        self._sources = sources
        self._redirects = redirects
        self._authenticators: LRUCache[WebOrigin, Authenticator] = LRUCache(_REGISTRIES)

    async def headers(self, url: str) -> dict[str, str]:
        """The headers for a request to another origin, as far as they are known."""
        authenticator = self._authenticators.get(origin_in(url))
        header = None if authenticator is None else await authenticator.header(_scope_in(url))
        return {} if header is None else {"Authorization": header}

    async def handle_challenge(self, response: httpx.Response) -> bool:
        """Whether another attempt may succeed after a 401 of another origin.

        Raises AccessDenied if its token server refuses.
        """
        text = response.headers.get("www-authenticate", "")
        schemes = {challenge.scheme for challenge in parse_challenges(text)} & {"bearer", "basic"}
        if not schemes:
            return False
        url = str(response.request.url)
        refused = response.request.headers.get("authorization")
        try:
            await self._authenticator(url).respond(text, _scope_in(url), refused)
        except AccessDenied:
            if "bearer" in schemes:
                raise
            return False  # storage may also require a password, which is not the user's
        return True

    def _authenticator(self, url: str) -> Authenticator:
        origin = origin_in(url)
        authenticator = self._authenticators.get(origin)
        if authenticator is None:
            host = normal_host(urlsplit(url).netloc.rpartition("@")[2])
            # The user has allowed plain HTTP for the first host only (docs/decisions/0250).
            sources = self._sources if origin[0] == "https" else ()
            authenticator = Authenticator(self._client, host, origin, sources, self._redirects)
            self._authenticators[origin] = authenticator
        return authenticator


def _scope_in(url: str) -> str:
    path = urlsplit(url).path
    return scope_of(path) if path.startswith("/v2/") else ""
