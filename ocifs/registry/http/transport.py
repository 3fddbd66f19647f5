"""Bytes over HTTP: an httpx client over our own `sockets`, whose every failure is one of our
errors.

Rules that hold here: redirects are never followed by httpx, since it would decide what goes along;
content is never decoded; no exception of httpx, httpcore, ssl or the operating system leaves this
module as itself.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import urlsplit

import httpcore
import httpx
import trio

from ocifs import __version__
from ocifs.errors import OcifsError
from ocifs.registry.http.addresses import NetworkZone, zone_of, zone_of_address
from ocifs.registry.http.errors import THEIRS, causes_of, our_error, our_errors, untrusted
from ocifs.registry.http.origins import WebOrigin
from ocifs.registry.http.proxies import make_pool, proxy_error, proxy_for
from ocifs.registry.http.sockets import StaleConnection
from ocifs.registry.http.tls import TlsConfig
from ocifs.settings import Timing

T = TypeVar("T")

log = logging.getLogger("ocifs.registry")

USER_AGENT = f"ocifs/{__version__}"
_HANDSHAKE = 3.0  # seconds in which a host on loopback shows that it has TLS
_REPEATED = frozenset({b"GET", b"HEAD"})  # methods that may be sent twice (RFC 9110, 9.2.2)
_PEERS = 64  # addresses of a registry that are remembered


class _PooledTransport(httpx.AsyncBaseTransport):
    """httpx's own transport but for the network backend, which that one gives no way to choose; a
    pool for each way to connect.
    """

    def __init__(self, registry: WebOrigin, trust: TlsConfig, connections: int) -> None:
        self._registry = registry
        self._trust = trust
        self._connections = connections
        self._pools: dict[
            tuple[ssl.SSLContext | None, str | None, bool], httpcore.AsyncConnectionPool
        ] = {}
        # Where the registry may lead: where its name says that it is, and to this machine's own
        # addresses once it has answered from one (a registry and its storage on one machine, each
        # by its name).
        self._zones = {NetworkZone.OUTSIDE, zone_of(registry[1])}
        self._peers: set[str] = set()

    def _proxy(self, url: httpx.URL) -> str | None:
        return self._trust.proxy or proxy_for(url.scheme, url.host, url.port, os.environ)

    def _pool(self, url: httpx.URL) -> httpcore.AsyncConnectionPool:
        proxy = self._proxy(url)
        context = self._trust.context(url.netloc.decode("ascii")) if url.scheme == "https" else None
        guarded = proxy is None and url.host != self._registry[1]
        key = (context, proxy, guarded)
        if key not in self._pools:
            self._pools[key] = make_pool(
                context, proxy, self._zones if guarded else None, self._connections
            )
        return self._pools[key]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._ask(self._pool(request.url), asked)
        except THEIRS as error:
            ours = self._explain(request.url, error)
            if ours is not None:
                raise ours from None
            raise
        try:
            if request.url.host == self._registry[1]:
                self._learn_zone(answer)
            body = _Body(answer)
            return httpx.Response(
                answer.status, headers=answer.headers, stream=body, extensions=answer.extensions
            )
        except BaseException:  # an answer that nobody gets would keep its connection for ever
            await answer.aclose()
            raise

    async def _ask(
        self, pool: httpcore.AsyncConnectionPool, asked: httpcore.Request
    ) -> httpcore.Response:
        """An answer.

        A request on a connection that the other end had closed is sent again at once, at most on
        each connection that may be kept: the registry has not failed, and it is not a retry.
        """
        for _ in range(self._connections if asked.method in _REPEATED else 0):
            try:
                return await pool.handle_async_request(asked)
            except StaleConnection:
                log.debug("a kept connection was closed by the other end")
        return await pool.handle_async_request(asked)

    def _explain(self, url: httpx.URL, error: Exception) -> OcifsError | None:
        """The error for a failure that is about the given certificates or about a proxy; None for
        another one.
        """
        authority, proxy = url.netloc.decode("ascii"), self._proxy(url)
        ours = untrusted(error, authority, self._trust.anchors(authority))
        return proxy_error(error, proxy) if ours is None and proxy is not None else ours

    def _learn_zone(self, answer: httpcore.Response) -> None:
        """Note that the registry is on this machine, now that it has answered."""
        stream = answer.extensions.get("network_stream")
        try:
            address = stream.get_extra_info("server_addr") if stream is not None else None
        except OSError:  # the connection was reset meanwhile, and has no peer any more
            return
        peer = str(address[0]) if address else ""
        if peer and peer not in self._peers and len(self._peers) < _PEERS:
            self._peers.add(peer)
            if zone_of_address(peer) is NetworkZone.OWN:
                self._zones.add(NetworkZone.OWN)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer, in the pieces in which it comes."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


def make_client(
    registry: WebOrigin, trust: TlsConfig, connections: int, timing: Timing
) -> httpx.AsyncClient:
    """A client for one registry and wherever it redirects to."""
    stall = timing.stall_timeout
    return httpx.AsyncClient(
        transport=_PooledTransport(registry, trust, connections),
        cookies=CookieJar(
            DefaultCookiePolicy(allowed_domains=[])
        ),  # a cookie would go along to the host's other ports
        timeout=httpx.Timeout(
            connect=timing.connect_timeout, read=stall, write=stall, pool=timing.max_wait
        ),
        follow_redirects=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


async def send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: Mapping[str, str],
    form: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Send a request; its answer's body is still to come, and whoever has the answer closes it."""
    with our_errors(_host_in(url)):
        request = client.build_request(method, url, headers=dict(headers), data=form)
        began = trio.current_time()
        try:
            answer = await client.send(request, stream=True)
        except THEIRS as error:
            log.debug("%s %s: %s", method, _place_of(request.url), type(error).__name__)
            raise
        took = trio.current_time() - began
        span = f" {headers['Range']}" if "Range" in headers else ""
        log.debug(
            "%s %s%s: %d in %.3f s", method, _place_of(request.url), span, answer.status_code, took
        )
        return answer


def _place_of(url: httpx.URL) -> str:
    """An address for the log: its query may be a signature, its user part a password."""
    return f"{url.host}{f':{url.port}' if url.port else ''}{url.path}"


async def speaks_tls(client: httpx.AsyncClient, host: str) -> bool:
    """Whether a host that does not understand plain http has TLS.

    Raises Unreachable where it has, and is not to be believed.
    """
    with trio.move_on_after(_HANDSHAKE):
        try:
            answer = await client.send(
                client.build_request("GET", f"https://{host}/v2/"), stream=True
            )
        except THEIRS as error:
            if any(_is_word_of_tls(cause) for cause in causes_of(error)):
                raise our_error(error, host) from None
            return False
        await answer.aclose()
        return True
    return False


_TURN = 0.005  # seconds of work on one answer before others have their turn


def _is_word_of_tls(cause: BaseException) -> bool:
    """Whether the other end speaks TLS: it has shown a certificate or sent an alert."""
    alert = isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or "")
    return alert or isinstance(cause, ssl.SSLCertVerificationError)


async def pieces(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes, not decoded. Raises Unreachable when it ends early.

    Pieces that are there already are given without waiting, and a mebibyte of chunks of one byte is
    170,000 of them.
    """
    turn_ends = time.perf_counter() + _TURN
    with our_errors(_host_in(str(answer.request.url))):
        async for piece in answer.aiter_raw():
            yield piece
            if time.perf_counter() > turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = time.perf_counter() + _TURN


def _host_in(url: str) -> str:
    """The host, and the port where one is written, that an error names; never more of an address,
    since a signed one is a secret.
    """
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'a registry'}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "a registry"


async def closing(answer: httpx.Response, work: Awaitable[T]) -> T:
    """What `work` finds.

    The answer is closed if that makes another one likely, or if the work fails.
    """
    try:
        found = await work
    except BaseException:
        await answer.aclose()
        raise
    if found:
        await answer.aclose()
    return found
