"""One registry's answers: requests with the right headers, redirects by hand, retries, bounds.

Called from the tasks that ask. State: the registry's origin, redirects that were seen, and what
manners and validators keep.

- Authorization goes to the registry's own origin and nowhere else. Another registry to which it
  leads has its own (`others`).
- Redirects are followed by hand, a bounded number of times, and never past `guards`.
- What a storage host answers is the registry's failure: neither absence nor a refusal. It is a
  verdict only of a registry, behind a front or with a token of its own.
- Every body is bounded, and so is the time that a small answer may take.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import httpx
import trio

from ocifs.concurrency import in_thread, note_progress
from ocifs.errors import (
    AccessDenied,
    DeadlineExceeded,
    LimitExceeded,
    Malformed,
    NotFound,
    OcifsError,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci.distribution.codings import codings, decoded
from ocifs.oci.distribution.endpoints import PING, scope_of
from ocifs.oci.distribution.error_body import error_text
from ocifs.oci.distribution.responses import error_of, is_registry_404, next_page
from ocifs.registry.auth.authenticator import Authenticator
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.foreign import ForeignAuth
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.http.errors import after_redirect
from ocifs.registry.http.etags import EtagStore, RegistryResponse
from ocifs.registry.http.origins import origin_in, redirect_target
from ocifs.registry.http.throttle import Throttle
from ocifs.registry.http.tls import TlsConfig, may_have_tls, origin_of
from ocifs.registry.http.transport import closing, make_client, pieces, send, speaks_tls
from ocifs.registry.request import RegistryRequest
from ocifs.settings import Settings

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PLACE_HOLDS = 60.0  # seconds for which a redirect is believed; signed addresses hold for some 300
# What ECR answers instead of a challenge to a token or password that has expired (400 the public
# one, 403 the private one).
_EXPIRED = frozenset({400, 403})
_CHALLENGES = 4  # answered for one question: two of the registry, two of another that it leads to
_PLACES = 256  # redirects that are remembered


@dataclass(frozen=True, slots=True)
class _Place:
    url: str
    until: float


class Connection:
    """Asks one registry."""

    def __init__(self, site: Endpoint, settings: Settings) -> None:
        self.site = site
        self.host = host = site.host
        self.limits = settings.limits
        self.origin = origin_of(host, settings.network, site.scheme)
        self._own = origin_in(self.origin)
        self._may_have_tls = (
            not site.scheme and self._own[0] == "http" and may_have_tls(host, settings.network)
        )
        self._max_wait = settings.timing.max_wait
        self.throttle = Throttle(
            host, self.limits.retries, min(settings.timing.timeout, settings.timing.max_wait)
        )
        self._etags = EtagStore(self.limits.validated_bytes)
        trust = TlsConfig(settings.network, site)
        self._client = make_client(self._own, trust, settings.network.connections, settings.timing)
        self._auth = Authenticator(self._client, host, self._own, settings)
        self._others = ForeignAuth(self._client, settings)
        self._places: dict[str, _Place] = {}

    async def aclose(self) -> None:
        await self._client.aclose()

    async def credential(self, repository: str) -> Credential | None:
        """The credential for a repository, whether the registry asks for it or not."""
        return await self._auth.credential(repository)

    @property
    def wants_tokens(self) -> bool:
        """Whether the registry is known to want a token for each scope."""
        return self._auth.wants_tokens

    def following(self, target: str, headers: Mapping[str, str]) -> str | None:
        """The target of the page that an answer to `target` says follows; None: there is none."""
        path = next_page(self.origin + self.site.path_of(target), headers)
        return None if path is None else self.site.target_of(path)

    async def ask(self, question: RegistryRequest) -> RegistryResponse:
        """A small answer, with retries."""
        return await self._in_time(question, lambda: self._ask(question))

    async def hint(self, question: RegistryRequest) -> RegistryResponse | None:
        """The same for what can also be asked in another way: None if the connection was lost."""

        async def ask_once() -> RegistryResponse | None:
            try:
                return await self._ask(question)
            except Unreachable as error:
                if not error.was_connected:
                    raise
            return None

        return await self._in_time(question, ask_once)

    async def _in_time(self, question: RegistryRequest, work: Callable[[], Awaitable[T]]) -> T:
        with trio.move_on_after(self._max_wait):
            return await self.throttle.call(question.kind, work)
        raise DeadlineExceeded(f"{self.host} did not answer within {self._max_wait:g} s")

    async def _ask(self, question: RegistryRequest) -> RegistryResponse:
        if question.changes:
            condition = self._etags.condition(question.target)
            allow = question.allow | ({304} if condition else frozenset())
            question = replace(question, headers={**question.headers, **condition}, allow=allow)
        answer = await self._open(question)
        try:
            body = b"" if question.method == "HEAD" else await self._whole(answer, question)
        finally:
            await answer.aclose()
        whole = RegistryResponse(
            answer.status_code,
            headers_of(answer),
            await self._without_coding(answer, body, question),
        )
        return self._etags.take(question.target, whole) if question.changes else whole

    @asynccontextmanager
    async def stream(self, question: RegistryRequest) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come; retried until it begins, and no further."""
        answer = await self.throttle.call(question.kind, lambda: self._open(question))
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _open(self, question: RegistryRequest) -> httpx.Response:
        """An open answer with an allowed status: authenticated, redirects followed."""
        scope = scope_of(question.target)
        authorization = await self._auth.header(scope)
        for last in (*(False,) * _CHALLENGES, True):
            answer = (
                await self._first(question)
                if self._may_have_tls
                else await self._follow(question, authorization)
            )
            if self._is_own(answer):
                self.throttle.heard(answer.headers)
            refused = answer.status_code == 401 and self._is_own(answer)
            old = (
                authorization
                if answer.status_code in _EXPIRED and self._is_own(answer) and not last
                else None
            )
            if old and (renewed := await closing(answer, self._auth.renew(scope, old))):
                authorization = renewed
                continue
            if answer.status_code in question.allow and (last or not refused):
                note_progress()
                return answer
            if (
                answer.status_code == 401
                and not refused
                and not last
                and await closing(answer, self._others.take_up(answer))
            ):
                continue
            if last or not refused:
                break
            challenge = answer.headers.get("www-authenticate", "")
            await answer.aclose()
            if not question.tokens and self._auth.learn(challenge):
                raise AccessDenied(
                    f"{self.host} wants a token for {question.target.partition('?')[0]}"
                )
            authorization = await self._auth.answer(
                challenge or await self._ping(), scope, authorization
            )
        raise await self._error(answer, question.target)

    async def _first(self, question: RegistryRequest) -> httpx.Response:
        """The first answer of a registry on loopback, which has TLS where it does not understand
        plain http and does understand TLS.

        Silence is not a sign of TLS: a server with TLS refuses plain http at once.
        """
        failure: Unreachable | None = None
        try:
            answer = await self._follow(question, None)
        except Unreachable as error:
            if not error.was_connected:
                raise
            failure = error
        # Outside the handler: the failure, which may be about TLS elsewhere, must not become the
        # context of the next.
        if failure is not None:
            if not await speaks_tls(self._client, self.host):
                raise failure
        elif answer.status_code != 400 or not await speaks_tls(self._client, self.host):
            self._may_have_tls = False
            return answer
        else:
            await answer.aclose()
        self._may_have_tls = False
        self.origin = f"https://{self.host}"
        self._own = self._auth.registry = origin_in(self.origin)
        return await self._follow(question, None)

    async def _ping(self) -> str:
        """The registry's own challenge, for registries whose refusals carry none (seen: gcr.io)."""
        answer = await send(
            self._client, "GET", self.origin + self.site.path_of(PING), dict(self.site.headers)
        )
        await answer.aclose()
        return str(answer.headers.get("www-authenticate", ""))

    async def greet(self) -> RegistryResponse:
        """The front door's answer to somebody without credentials, whatever its status; without its
        body.
        """
        question = RegistryRequest("GET", PING, {})
        answer = await (
            self._first(question) if self._may_have_tls else self._follow(question, None)
        )
        await answer.aclose()
        return RegistryResponse(answer.status_code, headers_of(answer), b"")

    async def sign_in(self) -> None:
        """Find out whether this is a registry that lets us in.

        Raises NotFound, AccessDenied, Unreachable and the like.
        """
        answer = await self.greet()
        if answer.status == 401:
            await self._auth.sign_in(answer.headers.get("www-authenticate", ""))
            if self.wants_tokens:
                return
        elif answer.status == 200:
            return
        try:
            await self.ask(RegistryRequest("GET", PING, {}, limit=self.limits.answer_bytes))
        except NotFound as error:
            error.hint = f"is this a registry? `ocifs doctor {self.host}` shows what answers"
            raise

    async def check(self) -> None:
        """Ask whether anybody is there; a refusal is an answer.

        Raises Unreachable, RegistryFailed.
        """
        answer = await self.greet()
        if answer.status >= 500:
            raise RegistryFailed(f"{self.host} answers {answer.status}", status=answer.status)

    async def _follow(self, question: RegistryRequest, authorization: str | None) -> httpx.Response:
        known = self._places.get(question.target) if question.may_be_elsewhere else None
        if known is not None:
            answer = await self._from_place(question, known)
            if answer is not None:
                return answer
        url = self.origin + self.site.path_of(question.target)
        for hop in range(self.limits.redirects + 1):
            own = origin_in(url) == self._own
            extra = self._own_headers(authorization) if own else await self._others.headers(url)
            try:
                answer = await send(
                    self._client, question.method, url, {**question.headers, **extra}
                )
            except Unreachable as error:
                if not hop or own:
                    raise
                raise after_redirect(error, self.host) from None
            if answer.status_code not in _REDIRECTS or "location" not in answer.headers:
                if (
                    hop
                    and not (own or extra)
                    and answer.status_code in (200, 206)
                    and question.may_be_elsewhere
                ):
                    self._remember(question.target, url)
                return answer
            await answer.aclose()
            url = redirect_target(self._own, url, answer.headers["location"])
        raise Malformed(
            f"{self.host} redirects more than {self.limits.redirects} times (limits.redirects)"
        )

    def _own_headers(self, authorization: str | None) -> dict[str, str]:
        return {
            **dict(self.site.headers),
            **({"Authorization": authorization} if authorization else {}),
        }

    async def _from_place(self, question: RegistryRequest, place: _Place) -> httpx.Response | None:
        """An answer from where the registry sent us last; None where it must be asked again."""
        if trio.current_time() < place.until:
            try:
                answer = await send(self._client, question.method, place.url, question.headers)
            except Unreachable:
                pass
            else:
                if answer.status_code in question.allow and answer.status_code < 300:
                    return answer
                await answer.aclose()
        self._places.pop(question.target, None)
        return None

    def _remember(self, target: str, url: str) -> None:
        while len(self._places) >= _PLACES:
            del self._places[next(iter(self._places))]
        self._places[target] = _Place(url, trio.current_time() + _PLACE_HOLDS)

    def _is_own(self, answer: httpx.Response) -> bool:
        return origin_in(str(answer.request.url)) == self._own

    async def _error(self, answer: httpx.Response, target: str) -> OcifsError:
        read = bytearray()
        try:
            if answer.request.method != "HEAD":
                async with aclosing(pieces(answer)) as parts:
                    async for piece in parts:
                        read += piece
                        if len(read) >= self.limits.error_bytes:
                            break
        finally:
            await answer.aclose()
        body = bytes(read[: self.limits.error_bytes])
        with suppress(Malformed, LimitExceeded):
            body = decoded(headers_of(answer), body, self.limits.error_bytes, self.host)
        what = f"{self.host}{target.partition('?')[0]}"
        status = answer.status_code
        if status < 400:
            return RegistryFailed(
                f"{what}: the registry answered {status}, which nothing provides for", status=status
            )
        absent = status == 404 and is_registry_404(target, answer.request.url.path, body)
        is_registry = self._is_own(answer) or "authorization" in answer.request.headers
        who = (
            "the registry"
            if self._is_own(answer)
            else f"{answer.request.url.host}, to which the registry sends us,"
        )
        if status == 407:
            return Unreachable(
                f"{what}: the proxy wants credentials",
                hint="write http://NAME:PASSWORD@PROXY in http_proxy",
            )
        if not is_registry and status != 429 and not absent:
            words = error_text(headers_of(answer), body)
            text = f"{what}: {who} answered {status}"
            return RegistryFailed(f"{text} ({words})" if words else text, status=status)
        return error_of(status, headers_of(answer), body, f"{what}: {who}", time.time())

    async def _without_coding(
        self, answer: httpx.Response, body: bytes, question: RegistryRequest
    ) -> bytes:
        """A body that was encoded although identity was asked for, decoded off the event loop."""
        headers = headers_of(answer)
        if not body or not codings(headers):
            return body
        what = f"{self.host}{question.target.partition('?')[0]}"
        return await in_thread(decoded, headers, body, question.limit, what)

    async def _whole(self, answer: httpx.Response, question: RegistryRequest) -> bytes:
        body = bytearray()  # and not a list: pieces can be of one byte
        async with aclosing(pieces(answer)) as coming:
            async for piece in coming:
                body += piece
                if len(body) > question.limit:
                    what = f"{self.host}{question.target.partition('?')[0]}"
                    setting = "manifest_bytes" if "/manifests/" in what else "answer_bytes"
                    raise LimitExceeded(
                        f"{what} answers with more than {question.limit} bytes (limits.{setting})"
                    )
                note_progress()
        return bytes(body)


def headers_of(answer: httpx.Response) -> dict[str, str]:
    """The headers of an answer, their names in lower case."""
    return {name.lower(): value for name, value in answer.headers.items()}
