"""Registries that a registry leads to, each with a challenge and credentials of its own (lscr.io,
Scarf and other front doors).

`Connection` calls this module for every request that leaves its registry's origin. State: an
Authenticator for each origin that has sent a challenge, for the life of the connection.

- A host that sends no challenge gets nothing: it is storage.
- Credentials are those that were found for that host, and are sent there and to its token server
  alone. Without TLS there are none.
- Nothing of the first registry goes along, and nothing of the others comes back to it.
- Where a challenge may send us is judged by the same guards as for the first registry.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from ocifs.errors import AccessDenied
from ocifs.oci.distribution.challenge import parse_challenges
from ocifs.oci.distribution.endpoints import scope_of
from ocifs.oci.reference import normal_host
from ocifs.registry.auth.authenticator import Authenticator
from ocifs.registry.http.origins import WebOrigin, origin_in
from ocifs.settings import Settings

_MOST = 8  # registries that one leads to


class ForeignAuth:
    """Authorization for wherever one registry leads."""

    def __init__(self, client: httpx.AsyncClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._known: dict[WebOrigin, Authenticator] = {}

    async def headers(self, url: str) -> dict[str, str]:
        """What a request to another origin needs, as far as is known."""
        known = self._known.get(origin_in(url))
        header = None if known is None else await known.header(_scope_in(url))
        return {} if header is None else {"Authorization": header}

    async def take_up(self, answer: httpx.Response) -> bool:
        """Whether asking again may help after a 401 of another origin.

        Raises AccessDenied if its token server refuses.
        """
        text = answer.headers.get("www-authenticate", "")
        schemes = {challenge.scheme for challenge in parse_challenges(text)} & {"bearer", "basic"}
        if not schemes:
            return False
        url = str(answer.request.url)
        try:
            await self._authenticator(url).answer(
                text, _scope_in(url), answer.request.headers.get("authorization")
            )
        except AccessDenied:
            if "bearer" in schemes:
                raise
            return False  # storage may ask for a password too, and then it is not about the user
        return True

    def _authenticator(self, url: str) -> Authenticator:
        origin = origin_in(url)
        if origin not in self._known:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            host = normal_host(urlsplit(url).netloc.rpartition("@")[2])
            anonymous = origin[0] != "https"
            self._known[origin] = Authenticator(
                self._client, host, origin, self._settings, anonymous=anonymous
            )
        return self._known[origin]


def _scope_in(url: str) -> str:
    path = urlsplit(url).path
    return scope_of(path) if path.startswith("/v2/") else ""
