"""Bytes over HTTP: an httpx client for one registry, with its connection pools and errors.

`Connection` and the token requests call this module from the task of the caller. State: one pool of
connections for each combination of TLS context and proxy, for the life of the client, and the
network zones that the registry may lead to.

httpx's own transport does not let a caller choose the network backend. `_PooledTransport` replaces
it, so that sockets come from `sockets`, which bounds heads and checks addresses.

- httpx never follows a redirect: it would decide which headers are sent along. `Connection` does.
- Content is never decoded here.
- No cookie is stored: it would also be sent to other ports of the same host.
- No exception of httpx, httpcore, ssl or the operating system leaves this module untranslated.
- Messages and logs name a host and a path, never a query: a signed address is a secret.
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
from ocifs.registry.http.errors import (
    LIBRARY_ERRORS,
    causes_of,
    certificate_error,
    translate_error,
    translated_errors,
)
from ocifs.registry.http.origins import WebOrigin
from ocifs.registry.http.proxies import make_pool, proxy_error, proxy_for
from ocifs.registry.http.sockets import StaleConnection
from ocifs.registry.http.tls import TlsConfig
from ocifs.settings import Timing

T = TypeVar("T")

log = logging.getLogger("ocifs.registry")

USER_AGENT = f"ocifs/{__version__}"
_HANDSHAKE = 3.0  # seconds in which a host on loopback must respond over TLS
_IDEMPOTENT = frozenset({b"GET", b"HEAD"})  # methods that may be sent twice (RFC 9110, 9.2.2)
_PEERS = 64  # addresses of one registry that are classified
_TURN = 0.005  # seconds of work on one response before other tasks run


class _PooledTransport(httpx.AsyncBaseTransport):
    """An httpx transport with a connection pool for each way to connect."""

    def __init__(self, registry: WebOrigin, tls: TlsConfig, connections: int) -> None:
        self._registry = registry
        self._tls = tls
        self._connections = connections
        self._pools: dict[
            tuple[ssl.SSLContext | None, str | None, bool], httpcore.AsyncConnectionPool
        ] = {}
        # The zones that the registry may redirect to: the zone of its name, and this machine's own
        # addresses once the registry has responded from one. Then the registry and its storage are
        # on one machine, each with a name.
        self._zones = {NetworkZone.OUTSIDE, zone_of(registry[1])}
        self._peers: set[str] = set()

    def _proxy(self, url: httpx.URL) -> str | None:
        return self._tls.proxy or proxy_for(url.scheme, url.host, url.port, os.environ)

    def _pool(self, url: httpx.URL) -> httpcore.AsyncConnectionPool:
        proxy = self._proxy(url)
        context = self._tls.context(url.netloc.decode("ascii")) if url.scheme == "https" else None
        # The user has chosen the registry's own host, and a proxy resolves names itself. All other
        # addresses are chosen by a registry, and checked when they are resolved.
        guarded = proxy is None and url.host != self._registry[1]
        key = (context, proxy, guarded)
        if key not in self._pools:
            self._pools[key] = make_pool(
                context, proxy, self._zones if guarded else None, self._connections
            )
        return self._pools[key]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            response = await self._send(self._pool(request.url), sent)
        except LIBRARY_ERRORS as error:
            translated = self._explain(request.url, error)
            if translated is not None:
                raise translated from None
            raise
        try:
            # A host that the registry redirects to must not add zones.
            if request.url.host == self._registry[1]:
                self._record_zone(response)
            return httpx.Response(
                response.status,
                headers=response.headers,
                stream=_Body(response),
                extensions=response.extensions,
            )
        except BaseException:
            # A response that is not returned would occupy its connection forever.
            await response.aclose()
            raise

    async def _send(
        self, pool: httpcore.AsyncConnectionPool, request: httpcore.Request
    ) -> httpcore.Response:
        """Send a request, again after each connection that the server had closed.

        The registry has not failed, so this is not a retry. Each pooled connection can be stale
        once.
        """
        for _ in range(self._connections if request.method in _IDEMPOTENT else 0):
            try:
                return await pool.handle_async_request(request)
            except StaleConnection:
                log.debug("the server had closed an idle connection")
        return await pool.handle_async_request(request)

    def _explain(self, url: httpx.URL, error: Exception) -> OcifsError | None:
        """The error for a failure of the configured certificates or of a proxy, otherwise None."""
        authority, proxy = url.netloc.decode("ascii"), self._proxy(url)
        translated = certificate_error(error, authority, self._tls.anchors(authority))
        if translated is None and proxy is not None:
            return proxy_error(error, proxy)
        return translated

    def _record_zone(self, response: httpcore.Response) -> None:
        """Allow this machine's own addresses if the registry responds from one."""
        stream = response.extensions.get("network_stream")
        try:
            address = stream.get_extra_info("server_addr") if stream is not None else None
        except OSError:  # the connection was reset meanwhile, and has lost its peer
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
    """The body of a response, in the pieces in which it arrives."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


def make_client(
    registry: WebOrigin, tls: TlsConfig, connections: int, timing: Timing
) -> httpx.AsyncClient:
    """A client for one registry and the hosts that it redirects to."""
    stall = timing.stall_timeout
    return httpx.AsyncClient(
        transport=_PooledTransport(registry, tls, connections),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        # A busy pool is not a silent host: only the limit of the whole operation bounds that wait.
        timeout=httpx.Timeout(
            connect=timing.connect_timeout, read=stall, write=stall, pool=timing.max_wait
        ),
        follow_redirects=False,
        # Ranges and digests count the stored bytes, so a coding would make both useless.
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


async def send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: Mapping[str, str],
    form: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Send a request. The caller reads the body of the response and closes it."""
    with translated_errors(_host_in(url)):
        request = client.build_request(method, url, headers=dict(headers), data=form)
        began = trio.current_time()
        try:
            response = await client.send(request, stream=True)
        except LIBRARY_ERRORS as error:
            log.debug("%s %s: %s", method, _loggable(request.url), type(error).__name__)
            raise
        seconds = trio.current_time() - began
        span = f" {headers['Range']}" if "Range" in headers else ""
        url, status = _loggable(request.url), response.status_code
        log.debug("%s %s%s: %d in %.3f s", method, url, span, status, seconds)
        return response


def _loggable(url: httpx.URL) -> str:
    """An address without its query and user, which may be secrets."""
    return f"{url.host}{f':{url.port}' if url.port else ''}{url.path}"


async def supports_tls(client: httpx.AsyncClient, host: str) -> bool:
    """Whether a host that does not respond to plain HTTP uses TLS.

    Raises Unreachable if it does, and its certificate is not trusted.
    """
    with trio.move_on_after(_HANDSHAKE):
        try:
            request = client.build_request("GET", f"https://{host}/v2/")
            response = await client.send(request, stream=True)
        except LIBRARY_ERRORS as error:
            if any(_is_tls_peer(cause) for cause in causes_of(error)):
                raise translate_error(error, host) from None
            return False
        await response.aclose()
        return True
    return False


def _is_tls_peer(cause: BaseException) -> bool:
    """Whether the peer uses TLS: it has sent a certificate or an alert."""
    alert = isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or "")
    return alert or isinstance(cause, ssl.SSLCertVerificationError)


async def iter_body(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, not decoded. Raises Unreachable if it ends early.

    Pieces that have arrived are yielded without a checkpoint, and a mebibyte of one-byte chunks has
    170,000 of them. So other tasks get a turn every few milliseconds.
    """
    turn_ends = time.perf_counter() + _TURN
    with translated_errors(_host_in(str(response.request.url))):
        async for piece in response.aiter_raw():
            yield piece
            if time.perf_counter() > turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = time.perf_counter() + _TURN


def _host_in(url: str) -> str:
    """The host of an address, with the port if there is one, for messages."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'a registry'}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "a registry"


async def close_before_retry(response: httpx.Response, work: Awaitable[T]) -> T:
    """The result of `work`, which decides whether a request is sent again.

    The response is closed if the result is true, which means another request, or if `work` fails.
    """
    try:
        result = await work
    except BaseException:
        await response.aclose()
        raise
    if result:
        await response.aclose()
    return result
