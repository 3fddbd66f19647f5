"""Sends requests to one registry: authorization, retries, deadlines.

`RegistryClient`, the lists, the referrers and the blob streams call this module from the tasks of
readers. Each registry or mirror has one `Connection`, for the life of a mount.

A request takes this path. `fetch` and `stream` send it through the `Throttle`, which retries it.
`_open` adds the authorization, and repeats the request after a challenge. `redirects` sends it and
follows redirects. `http.transport` moves the bytes and translates exceptions.

State: whether the registry on loopback may have TLS, until its first response; and the state of the
authenticators, the throttle, the redirects and the ETags.

- The scheme is decided once. After that, a failure does not change it.
- An error of a storage host is the registry's failure: neither absence nor a refusal (`bodies`).
- Every body is bounded, and so is the time for a small response.
- A response that is not returned is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import httpx
import trio

from ocifs.concurrency import note_progress
from ocifs.errors import (
    AccessDenied,
    DeadlineExceeded,
    NotFound,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci.distribution.endpoints import PING, scope_of
from ocifs.oci.distribution.responses import next_page
from ocifs.registry.auth.authenticator import Authenticator
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.foreign import ForeignAuth
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.bodies import headers_of, read_body, response_error
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.http.etags import EtagStore, RegistryResponse
from ocifs.registry.http.origins import origin_in
from ocifs.registry.http.throttle import Throttle
from ocifs.registry.http.tls import TlsConfig, may_have_tls, origin_of
from ocifs.registry.http.transport import close_before_retry, make_client, supports_tls
from ocifs.registry.redirects import RedirectFollower
from ocifs.registry.request import RegistryRequest
from ocifs.settings import Settings

T = TypeVar("T")

# ECR's responses to an expired token or password, instead of a challenge: 400 from the public
# registry, 403 from the private one.
_EXPIRED = frozenset({400, 403})
# Challenges in one request: two of the registry, two of another that it redirects to.
_CHALLENGES = 4


class Connection:
    """Sends requests to one registry."""

    def __init__(self, endpoint: Endpoint, settings: Settings, sources: CredentialSources) -> None:
        network, timing = settings.network, settings.timing
        self.endpoint = endpoint
        self.host = host = endpoint.host
        self.limits = settings.limits
        url = origin_of(host, network, endpoint.scheme)
        origin = origin_in(url)
        self._may_have_tls = (
            not endpoint.scheme and origin[0] == "http" and may_have_tls(host, network)
        )
        self._max_wait = timing.max_wait
        self.throttle = Throttle(host, self.limits.retries, min(timing.timeout, timing.max_wait))
        self._etags = EtagStore(self.limits.validated_bytes)
        tls = TlsConfig(network, endpoint)
        self._client = make_client(origin, tls, network.connections, timing)
        redirects = self.limits.redirects
        self._auth = Authenticator(self._client, host, origin, sources, redirects)
        self._foreign = ForeignAuth(self._client, sources, redirects)
        self._sender = RedirectFollower(self._client, endpoint, url, self._foreign, redirects)

    async def aclose(self) -> None:
        await self._client.aclose()

    @property
    def url(self) -> str:
        """The registry's base URL."""
        return self._sender.url

    async def credential(self, repository: str) -> Credential | None:
        """The credential for a repository, whether or not the registry requires it."""
        return await self._auth.credential(repository)

    @property
    def wants_tokens(self) -> bool:
        """Whether the registry is known to require a token for each scope."""
        return self._auth.wants_tokens

    def next_page(self, target: str, headers: Mapping[str, str]) -> str | None:
        """The target of the page after `target`, from the headers of its response, if any."""
        path = next_page(self.url + self.endpoint.path_of(target), headers)
        return None if path is None else self.endpoint.target_of(path)

    async def fetch(self, request: RegistryRequest) -> RegistryResponse:
        """The response to a request, with its body. Retries."""
        return await self._within_deadline(request, lambda: self._fetch(request))

    async def try_fetch(self, request: RegistryRequest) -> RegistryResponse | None:
        """The response, or None if the connection was lost.

        For a request that has an alternative. A lost connection is not retried.
        """

        async def fetch() -> RegistryResponse | None:
            try:
                return await self._fetch(request)
            except Unreachable as error:
                if not error.was_connected:
                    raise
            return None

        return await self._within_deadline(request, fetch)

    async def _within_deadline(
        self, request: RegistryRequest, work: Callable[[], Awaitable[T]]
    ) -> T:
        with trio.move_on_after(self._max_wait):
            return await self.throttle.call(request.kind, work)
        raise DeadlineExceeded(f"{self.host} did not respond within {self._max_wait:g} s")

    async def _fetch(self, request: RegistryRequest) -> RegistryResponse:
        if request.is_repeated:
            condition = self._etags.condition(request.target)
            allow = request.allow | ({304} if condition else frozenset())
            request = replace(request, headers={**request.headers, **condition}, allow=allow)
        response = await self._open(request)
        body = await read_body(response, request, self.host)
        complete = RegistryResponse(response.status_code, headers_of(response), body)
        return self._etags.update(request.target, complete) if request.is_repeated else complete

    @asynccontextmanager
    async def stream(self, request: RegistryRequest) -> AsyncIterator[httpx.Response]:
        """An open response; the caller reads the body. Retries until the response has begun."""
        response = await self.throttle.call(request.kind, lambda: self._open(request))
        try:
            yield response
        finally:
            await response.aclose()

    async def _open(self, request: RegistryRequest) -> httpx.Response:
        """The open response with an allowed status: authorized, after all redirects."""
        scope = scope_of(request.target)
        authorization = await self._auth.header(scope)
        for is_last in (*(False,) * _CHALLENGES, True):
            response = await self._send(request, authorization)
            is_own = self._sender.is_own(response)
            if is_own:
                self.throttle.record_headers(response.headers)
            status = response.status_code
            if is_own and status in _EXPIRED and authorization and not is_last:
                renewal = self._auth.renew(scope, authorization)
                if renewed := await close_before_retry(response, renewal):
                    authorization = renewed
                    continue
            is_challenge = status == 401 and is_own
            if status in request.allow and (is_last or not is_challenge):
                note_progress()
                return response
            if is_last:
                break
            if is_challenge:
                authorization = await self._respond(request, response, authorization)
                continue
            if status != 401:
                break
            # The 401 of another registry, which has an authenticator of its own.
            if not await close_before_retry(response, self._foreign.handle_challenge(response)):
                break
        limit = self.limits.error_bytes
        raise await response_error(response, request, self.host, limit, is_own=is_own)

    async def _send(self, request: RegistryRequest, authorization: str | None) -> httpx.Response:
        if self._may_have_tls:
            return await self._negotiate_scheme(request)
        return await self._sender.send(request, authorization)

    async def _respond(
        self, request: RegistryRequest, response: httpx.Response, authorization: str | None
    ) -> str:
        """The Authorization header for another attempt after a 401. Closes the response."""
        challenge = response.headers.get("www-authenticate", "")
        await response.aclose()
        if not request.may_fetch_token and self._auth.remember_challenge(challenge):
            raise AccessDenied(f"{self.host} requires a token for {request.path}")
        # Some refusals have no challenge, while that of /v2/ has one (gcr.io).
        challenge = challenge or await self._sender.fetch_challenge(PING)
        return await self._auth.respond(challenge, scope_of(request.target), authorization)

    async def _negotiate_scheme(self, request: RegistryRequest) -> httpx.Response:
        """The first response of a registry on loopback, by plain HTTP or by TLS.

        TLS is used if the registry supports it, and ends the plain connection or answers it with a
        400. Silence is not a sign of TLS: a server with TLS refuses plain HTTP at once.
        """
        failure: Unreachable | None = None
        try:
            response = await self._sender.send(request, None)
        except Unreachable as error:
            if not error.was_connected:
                raise
            failure = error
        # Outside the handler, so that the failure does not become the context of a later error.
        if failure is not None:
            if not await supports_tls(self._client, self.host):
                raise failure
        elif response.status_code != 400 or not await supports_tls(self._client, self.host):
            self._may_have_tls = False
            return response
        else:
            await response.aclose()
        self._may_have_tls = False
        self._sender.use_tls()
        self._auth.registry = self._sender.origin
        return await self._sender.send(request, None)

    async def ping(self) -> RegistryResponse:
        """The response to `/v2/` without credentials, with any status, and without its body."""
        request = RegistryRequest("GET", PING, {})
        response = await self._send(request, None)
        await response.aclose()
        return RegistryResponse(response.status_code, headers_of(response), b"")

    async def sign_in(self) -> None:
        """Check that this is a registry, and that it accepts the credentials.

        Raises NotFound, AccessDenied, Unreachable and other errors.
        """
        response = await self.ping()
        if response.status == 401:
            await self._auth.sign_in(response.headers.get("www-authenticate", ""))
            if self.wants_tokens:
                return
        elif response.status == 200:
            return
        try:
            await self.fetch(RegistryRequest("GET", PING, {}, limit=self.limits.answer_bytes))
        except NotFound as error:
            error.hint = _not_a_registry(self.host)
            raise

    async def check(self) -> None:
        """Check that the registry responds. A refusal is a response.

        Raises Unreachable, RegistryFailed.
        """
        response = await self.ping()
        if response.status >= 500:
            raise RegistryFailed(f"{self.host} answered {response.status}", status=response.status)


def _not_a_registry(host: str) -> str:
    return f"check that this is a registry: `ocifs doctor {host}` shows its response"
