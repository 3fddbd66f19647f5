"""Bytes over HTTP: an httpx client that reads its sockets in large pieces, and whose every failure is one of our errors.

httpcore asks its sockets for 64 KiB at a time, which in Python limits a download to a few hundred MB/s; its pool takes a network
backend, and ours asks for a mebibyte.

Rules that hold here: redirects are never followed by httpx, since it would decide what goes along; content is never decoded; no
exception of httpx, httpcore, ssl or the operating system leaves this module as itself.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from math import inf
from typing import TypeAlias
from urllib.parse import urlsplit

import httpcore
import httpx
import trio

from ocifs import __version__
from ocifs.errors import AccessDenied, UsageError
from ocifs.registry.addresses import Zone, zone_of, zone_of_address
from ocifs.registry.failures import THEIRS, causes_of, our_error, our_errors
from ocifs.registry.guards import Origin
from ocifs.registry.trust import Trust, proxy_for
from ocifs.settings import KIB, MIB, Timing

log = logging.getLogger("ocifs.registry")

SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

USER_AGENT = f"ocifs/{__version__}"
_HANDSHAKE = 3.0  # seconds in which a host on loopback shows that it has TLS
HEAD_LINES = 256  # of an answer
HEAD_READ = 64 * KIB  # read of it at a time
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.. 1(?!01)")
_PEERS = 64  # addresses of a registry that are remembered
_KEPT_ALIVE = 30.0  # seconds for which an idle connection is kept


class _Head:
    """The head of an answer as it arrives, interim answers before it included: it has few lines."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._counted = 0  # bytes of it whose lines are counted
        self._lines = 0
        self.chunked = False

    def add(self, data: bytes) -> bool:
        """Take further bytes; whether the head is complete. Raises httpcore.RemoteProtocolError for one of too many lines."""
        searched = max(0, len(self._data) - 3)
        self._data += data
        while (end := _END_OF_HEAD.search(self._data, searched)) is not None:
            self._count(end.end())
            if not _INTERIM.match(self._data):
                self.chunked = b"chunked" in bytes(self._data[: end.end()]).lower()
                return True
            del self._data[: end.end()]
            self._counted = searched = 0
        self._count(len(self._data))
        return False

    def _count(self, stop: int) -> None:
        self._lines += self._data.count(b"\n", self._counted, stop)
        self._counted = stop
        if self._lines > HEAD_LINES:
            raise httpcore.RemoteProtocolError(f"more than {HEAD_LINES} lines of headers")


class _LargeReads(httpcore.AsyncNetworkStream):
    """A stream whose reads are large once the head of an answer is there.

    h11 parses what it is given at once: a mebibyte of headers, or of trailers, would take a second of the event loop.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._head: _Head | None = None
        self._size = MIB

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._inner.read(max(max_bytes, self._size), timeout)
        if self._head is not None and self._head.add(data):
            self._size = HEAD_READ if self._head.chunked else MIB
            self._head = None
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._head, self._size = _Head(), HEAD_READ
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _LargeReads(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.AsyncNetworkBackend):
    """trio's sockets, read in large pieces. `zones`: where a host may be; None: anywhere."""

    def __init__(self, zones: set[Zone] | None) -> None:
        self._inner = httpcore.TrioBackend()
        self._zones = zones

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._checked(host, port, timeout, self._zones) if self._zones else [host]
        for number, address in enumerate(addresses, 1):
            try:
                stream = await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
            else:
                return _LargeReads(stream)
        raise httpcore.ConnectError(f"{host} has no address")

    async def _checked(self, host: str, port: int, timeout: float | None, zones: set[Zone]) -> list[str]:
        """The addresses of a host that a registry chose, for connecting to just these."""
        found: list[str] = []
        with trio.move_on_after(inf if timeout is None else timeout) as scope:
            answers = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        if scope.cancelled_caught:
            raise httpcore.ConnectTimeout(f"the name {host} is not resolved in time")
        for zone in map(zone_of_address, found):
            if zone not in zones:
                raise AccessDenied(f"{host}, to which a registry elsewhere sends us, is {zone.value}")
        return found

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _LargeReads(await self._inner.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Transport(httpx.AsyncBaseTransport):
    """httpx's own transport but for the network backend, which that one gives no way to choose; a pool for each way to connect."""

    def __init__(self, registry: Origin, trust: Trust, connections: int) -> None:
        self._registry = registry
        self._trust = trust
        self._connections = connections
        self._pools: dict[tuple[ssl.SSLContext | None, str | None, bool], httpcore.AsyncConnectionPool] = {}
        # Where the registry may lead: where its name says that it is, and to this machine's own addresses once it has
        # answered from one (a registry and its storage on one machine, each by its name).
        self._zones = {Zone.OUTSIDE, zone_of(registry[1])}
        self._peers: set[str] = set()

    def _pool(self, url: httpx.URL) -> httpcore.AsyncConnectionPool:
        proxy = self._trust.proxy or proxy_for(url.scheme, url.host, os.environ)
        context = self._trust.context(url.netloc.decode("ascii")) if url.scheme == "https" else None
        guarded = proxy is None and url.host != self._registry[1]
        key = (context, proxy, guarded)
        if key not in self._pools:
            self._pools[key] = _make_pool(context, proxy, self._zones if guarded else None, self._connections)
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
        answer = await self._pool(request.url).handle_async_request(asked)
        try:
            if request.url.host == self._registry[1]:
                self._learn_zone(answer)
            body = _Body(answer)
            return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)
        except BaseException:  # an answer that nobody gets would keep its connection for ever
            await answer.aclose()
            raise

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
            if zone_of_address(peer) is Zone.OWN:
                self._zones.add(Zone.OWN)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def _make_pool(
    context: ssl.SSLContext | None, proxy: str | None, zones: set[Zone] | None, connections: int
) -> httpcore.AsyncConnectionPool:
    if proxy is None:
        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_KEPT_ALIVE,
            network_backend=_Backend(zones),
        )
    place = httpx.URL(proxy)
    if place.scheme not in ("http", "https"):
        raise UsageError(
            f"a proxy of the kind {place.scheme} is not known", hint="http_proxy, https_proxy and all_proxy name it"
        )
    return httpcore.AsyncHTTPProxy(
        proxy_url=httpcore.URL(scheme=place.raw_scheme, host=place.raw_host, port=place.port, target=b"/"),
        proxy_auth=(place.username, place.password) if place.username else None,
        ssl_context=context,
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=_KEPT_ALIVE,
        network_backend=_Backend(zones=None),
    )


class _Body(httpx.AsyncByteStream):
    """The body of an answer, in the pieces in which it comes."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


def make_client(registry: Origin, trust: Trust, connections: int, timing: Timing) -> httpx.AsyncClient:
    """A client for one registry and wherever it redirects to."""
    stall = timing.stall_timeout
    return httpx.AsyncClient(
        transport=_Transport(registry, trust, connections),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # a cookie would go along to the host's other ports
        timeout=httpx.Timeout(connect=timing.connect_timeout, read=stall, write=stall, pool=timing.max_wait),
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
        log.debug("%s %s%s: %d in %.3f s", method, _place_of(request.url), span, answer.status_code, took)
        return answer


def _place_of(url: httpx.URL) -> str:
    """An address for the log: its query may be a signature, its user part a password."""
    return f"{url.host}{f':{url.port}' if url.port else ''}{url.path}"


async def speaks_tls(client: httpx.AsyncClient, host: str) -> bool:
    """Whether a host that does not understand plain http has TLS. Raises Unreachable where it has, and is not to be believed."""
    with trio.move_on_after(_HANDSHAKE):
        try:
            answer = await client.send(client.build_request("GET", f"https://{host}/v2/"), stream=True)
        except THEIRS as error:
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes_of(error)):
                raise our_error(error, host) from None
            return False
        await answer.aclose()
        return True
    return False


_TURN = 0.005  # seconds of work on one answer before others have their turn


async def pieces(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes, not decoded. Raises Unreachable when it ends early.

    Pieces that are there already are given without waiting, and a mebibyte of chunks of one byte is 170,000 of them.
    """
    turn_ends = time.perf_counter() + _TURN
    with our_errors(_host_in(str(answer.request.url))):
        async for piece in answer.aiter_raw():
            yield piece
            if time.perf_counter() > turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = time.perf_counter() + _TURN


def _host_in(url: str) -> str:
    """The host, and the port where one is written, that an error names; never more of an address, since a signed one is a secret."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'a registry'}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "a registry"
