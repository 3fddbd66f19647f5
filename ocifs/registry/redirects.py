"""Sends one request to a registry, and follows its redirects.

`Connection` has one `RedirectFollower`, and calls it for each attempt of a request. State: the
registry's origin, which changes from plain HTTP to TLS at most once; the redirects of blobs, for a
minute; and the authenticators of other registries.

- The registry's Authorization header is sent to its own origin alone. Another registry that it
  redirects to has its own authenticator (`auth.foreign`).
- The number of redirects is bounded, and `http.origins` must allow each address.
- A remembered redirect is used only if it succeeds. Otherwise the registry is asked again.
- A response that is not returned is closed.
"""

from __future__ import annotations

import httpx
import trio
from cachetools import TTLCache

from ocifs.errors import Malformed, Unreachable
from ocifs.registry.auth.foreign import ForeignAuth
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.http.errors import after_redirect
from ocifs.registry.http.origins import WebOrigin, origin_in, redirect_target
from ocifs.registry.http.transport import send
from ocifs.registry.request import RegistryRequest

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# How long a redirect is reused. Signed addresses are valid for about 300 seconds.
_SECONDS = 60.0
_REMEMBERED = 256


class RedirectFollower:
    """Sends requests to one registry. `url`: its base URL; `redirects`: the limit for a request."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        endpoint: Endpoint,
        url: str,
        foreign: ForeignAuth,
        redirects: int,
    ) -> None:
        self.url = url
        self.origin: WebOrigin = origin_in(url)
        self._client = client
        self._endpoint = endpoint
        self._foreign = foreign
        self._limit = redirects
        self._remembered: TTLCache[str, str] = TTLCache(
            _REMEMBERED, _SECONDS, timer=trio.current_time
        )

    def use_tls(self) -> None:
        """Send further requests by TLS."""
        self.url = f"https://{self._endpoint.host}"
        self.origin = origin_in(self.url)

    def is_own(self, response: httpx.Response) -> bool:
        """Whether a response is from the registry's own origin."""
        return origin_in(str(response.request.url)) == self.origin

    async def send(self, request: RegistryRequest, authorization: str | None) -> httpx.Response:
        """The open response after all redirects, with any status."""
        if request.has_reusable_redirect:
            response = await self._send_to_remembered(request)
            if response is not None:
                return response
        url = self.url + self._endpoint.path_of(request.target)
        for hop in range(self._limit + 1):
            is_own = origin_in(url) == self.origin
            headers = (
                self._own_headers(authorization) if is_own else await self._foreign.headers(url)
            )
            try:
                response = await send(
                    self._client, request.method, url, {**request.headers, **headers}
                )
            except Unreachable as error:
                if not hop or is_own:
                    raise
                raise after_redirect(error, self._endpoint.host) from None
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                # An address that needs no credentials is reused for the next part of the blob.
                is_storage = hop and not is_own and not headers
                is_good = is_storage and response.status_code in (200, 206)
                if is_good and request.has_reusable_redirect:
                    self._remembered[request.target] = url
                return response
            await response.aclose()
            url = redirect_target(self.origin, url, response.headers["location"])
        raise Malformed(
            f"{self._endpoint.host} redirects more than {self._limit} times (limits.redirects)"
        )

    async def fetch_challenge(self, target: str) -> str:
        """The challenge in the registry's own response to a GET of `target`, if any."""
        url = self.url + self._endpoint.path_of(target)
        response = await send(self._client, "GET", url, self._own_headers(None))
        await response.aclose()
        return str(response.headers.get("www-authenticate", ""))

    def _own_headers(self, authorization: str | None) -> dict[str, str]:
        headers = dict(self._endpoint.headers)
        return {**headers, "Authorization": authorization} if authorization else headers

    async def _send_to_remembered(self, request: RegistryRequest) -> httpx.Response | None:
        """The response of a remembered redirect; None if the registry must be asked again."""
        url = self._remembered.get(request.target)
        if url is None:
            return None
        try:
            response = await send(self._client, request.method, url, request.headers)
        except Unreachable:
            pass
        else:
            if response.status_code in request.allow and response.status_code < 300:
                return response
            await response.aclose()
        # The signature of the address may have expired.
        self._remembered.pop(request.target, None)
        return None
