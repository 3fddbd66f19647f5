"""One registry's answers: requests with the right headers, redirects by hand, retries, bounds.

Rules that hold here: Authorization goes to the registry's own origin and nowhere else; a redirect is followed at most so often, never
to less safety than the registry has, nor to an address of this machine unless the registry is there; every body is bounded.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx
import trio

from ocifs.concurrency import note_progress
from ocifs.errors import LimitExceeded, Malformed, OcifsError
from ocifs.oci.endpoints import scope_of
from ocifs.oci.replies import error_of
from ocifs.oci.retry import RETRIED, pause_before
from ocifs.registry.auth import Authenticator, is_inner
from ocifs.registry.transport import make_client, pieces, sent
from ocifs.registry.trust import origin_of, tls_context
from ocifs.settings import Settings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Asks one registry."""

    def __init__(self, host: str, settings: Settings) -> None:
        self.host = host
        self.limits = settings.limits
        self.origin = origin_of(host, settings.network)
        self._client = make_client(tls_context(host, settings.network), settings.network.connections, settings.timing)
        self._auth = Authenticator(self._client, host, self.origin, settings.network.authfile)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        limit: int,
        *,
        allow: frozenset[int] = frozenset({200}),
    ) -> Answer:
        """A small answer, with retries; any status not in `allow` is raised as its error."""
        attempt = 1
        while True:
            try:
                async with self.stream(method, target, headers, allow) as answer:
                    body = await self._whole(answer, limit, target) if method != "HEAD" else b""
                    return Answer(answer.status_code, _lower(answer), body)
            except OcifsError as error:
                pause = pause_before(attempt, error, self.limits.retries, random.random())  # noqa: S311 (spreads load)
                if pause is None:
                    raise
            attempt += 1
            await trio.sleep(pause)

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Mapping[str, str], allow: frozenset[int]
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come; authenticated, redirects followed, a status not in `allow` raised as its error."""
        scope = scope_of(target)
        authorization = await self._auth.header(scope)
        for attempt in range(3):
            async with self._redirected(method, target, headers, authorization) as answer:
                if answer.status_code == 401 and attempt < 2:
                    challenge = answer.headers.get("www-authenticate", "")
                elif answer.status_code in allow:
                    note_progress()
                    self._refuse_encoding(answer)
                    yield answer
                    return
                else:
                    raise await self._error(answer, target)
            authorization = await self._auth.answer(challenge, scope, authorization)

    @asynccontextmanager
    async def _redirected(
        self, method: str, target: str, headers: Mapping[str, str], authorization: str | None
    ) -> AsyncIterator[httpx.Response]:
        url = self.origin + target
        for _ in range(self.limits.redirects + 1):
            ours = _origin(url) == self.origin
            extra = {"Authorization": authorization} if authorization and ours else {}
            request = self._client.build_request(method, url, headers={**headers, **extra})
            async with sent(self._client, request) as answer:
                if answer.status_code not in _REDIRECTS or "location" not in answer.headers:
                    yield answer
                    return
                url = self._next(url, answer.headers["location"])
        raise Malformed(f"{self.host} redirects more than {self.limits.redirects} times (limits.redirects)")

    def _next(self, url: str, location: str) -> str:
        """Where a redirect leads, when it may be followed."""
        target = urljoin(url, location)
        there, here = urlsplit(target), urlsplit(self.origin)
        if there.scheme not in ("http", "https") or (there.scheme == "http" and here.scheme == "https"):
            raise Malformed(f"{self.host} redirects to a place without TLS: {there.scheme}://{there.netloc}")
        if is_inner(there.hostname or "") and not is_inner(here.hostname or ""):
            raise Malformed(f"{self.host} redirects to an address of this machine: {there.netloc}")
        return target

    async def _error(self, answer: httpx.Response, target: str) -> OcifsError:
        body = b""
        if answer.request.method != "HEAD":
            async for piece in pieces(answer):
                body = (body + piece)[: self.limits.error_bytes]
                if len(body) == self.limits.error_bytes:
                    break
        what = f"{self.host}{target.partition('?')[0]}"
        if answer.status_code in RETRIED or answer.status_code >= 400:
            return error_of(answer.status_code, _lower(answer), body, what, time.time())
        return Malformed(f"{what}: the registry answered {answer.status_code}, which nothing provides for")

    async def _whole(self, answer: httpx.Response, limit: int, target: str) -> bytes:
        parts, size = [], 0
        async for piece in pieces(answer):
            parts.append(piece)
            size += len(piece)
            if size > limit:
                raise LimitExceeded(f"{self.host}{target.partition('?')[0]} answers with more than {limit} bytes")
            note_progress()
        return b"".join(parts)

    def _refuse_encoding(self, answer: httpx.Response) -> None:
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding.lower() not in ("", "identity"):
            raise Malformed(f"{self.host} encodes content ({encoding}) that was asked for as it is")


def _lower(answer: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
