"""Sockets for httpcore: connections to the addresses that a host may have, reads in large pieces.

httpcore calls this module from the task that asks. httpcore asks its sockets for 64 KiB at a time,
which in Python limits a download to a few hundred MB/s; the streams here ask for 256 KiB.

- A host that a registry chose is resolved here, its addresses are checked against `zones`, and only
  these are connected to.
- Addresses are tried in turn, each DELAY seconds after the one before or once that has failed,
  families alternating (RFC 8305). trio does the same for a host that is not checked. A dead IPv6
  address costs DELAY, not the whole timeout.
- Heads of answers pass through `heads`, which bounds them and takes illegal lines out.
- A connection that was kept after an answer, and ends before the first byte of the next one, raises
  `StaleConnection`: the other end had closed it, and has not seen the request.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, zip_longest
from math import inf
from typing import TypeAlias

import httpcore
import trio

from ocifs.errors import AccessDenied
from ocifs.registry.http.addresses import NetworkZone, zone_of_address
from ocifs.registry.http.chunks import Chunks
from ocifs.registry.http.heads import Head
from ocifs.settings import KIB

SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)
Connect: TypeAlias = Callable[[str], Awaitable[httpcore.AsyncNetworkStream]]

DELAY = 0.25  # seconds, RFC 8305, 8: "Connection Attempt Delay"
HEAD_READ = 64 * KIB  # read of a head at a time
# Of a body: h11 copies what is read twice, and 16 connections of a host are read at a time.
BODY_READ = 256 * KIB
CHUNKED_READ = 16 * KIB  # of a chunked body: 2,700 chunks at most, some milliseconds
_NOT_CONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout)


class StaleConnection(httpcore.ReadError):
    """A connection was used again, and ended without a byte of an answer."""


class SocketStream(httpcore.AsyncNetworkStream):
    """A connection, whose reads are large once the head of an answer has been read.

    h11 parses what it is given at once: a mebibyte of headers would take a second of the event
    loop. So would trailers and short chunks: of a chunked body little is read at a time.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._pending = b""
        self._size = BODY_READ
        self._kept = False  # after an answer, for further requests
        self._answered = False  # a byte of the answer to the last request has come

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            if self._pending:
                await trio.lowlevel.checkpoint()
                return self._chunk(self._pending)
            data = await self._receive(max(max_bytes, self._size), timeout)
            if self._head is None:
                return self._chunk(data)
            passed = self._head.feed(data) if data else self._head.rest()
            if self._head.done or not data:
                passed = self._begin_body(self._head, passed)
            if passed or not data:  # an empty read would be the end
                return passed

    async def _receive(self, size: int, timeout: float | None) -> bytes:
        failure: httpcore.ReadError | None = None
        try:
            data = await self._inner.read(size, timeout)
        except httpcore.ReadError as error:
            data, failure = b"", error
        if data:
            self._answered = True
        elif self._kept and not self._answered:
            raise StaleConnection(str(failure or "it was closed")) from failure
        elif failure is not None:
            raise failure
        return data

    def _begin_body(self, head: Head, passed: bytes) -> bytes:
        """What is left of the last bytes of a head without the body."""
        self._head, self._size = None, BODY_READ if head.complete else HEAD_READ
        self._kept = self._kept or head.complete
        if not (head.complete and head.chunked):
            return passed
        self._chunks, self._size = Chunks(), CHUNKED_READ
        self._pending = passed[len(passed) - head.body :]
        return passed[: len(passed) - head.body]

    def _chunk(self, data: bytes) -> bytes:
        """So much of a body as may be parsed at a time."""
        if self._chunks is None:
            return data
        data, self._pending = data[:CHUNKED_READ], data[CHUNKED_READ:]
        self._chunks.feed(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # What is read after a request begins with a head.
        self._head, self._size = Head(), HEAD_READ
        self._chunks, self._pending = None, b""
        self._answered = False
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return SocketStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))
        except (
            BaseException
        ):  # httpcore closes it for errors, not if the caller leaves in the middle of the handshake
            with trio.CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class Backend(httpcore.AsyncNetworkBackend):
    """trio's sockets. `zones`: where a host may be; None: anywhere."""

    def __init__(self, zones: set[NetworkZone] | None) -> None:
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
        async def connect(address: str) -> httpcore.AsyncNetworkStream:
            return await self._inner.connect_tcp(
                address, port, timeout, local_address, socket_options
            )

        if self._zones is None:
            return SocketStream(await connect(host))
        addresses = await _checked(host, port, timeout, self._zones)
        if not addresses:
            raise httpcore.ConnectError(f"{host} has no address")
        return SocketStream(await connect_first(addresses, connect))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return SocketStream(await self._inner.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def _checked(
    host: str, port: int, timeout: float | None, zones: set[NetworkZone]
) -> list[str]:
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
    return alternating(found)


def alternating(addresses: Sequence[str]) -> list[str]:
    """Addresses with the families taking turns, beginning with that of the first."""
    if not addresses:
        return []
    like_first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    others = [address for address in addresses if address not in like_first]
    return [address for address in chain(*zip_longest(like_first, others)) if address is not None]


async def connect_first(addresses: Sequence[str], connect: Connect) -> httpcore.AsyncNetworkStream:
    """A connection to the first address that has one to offer. Raises what the last one raised."""
    won: list[httpcore.AsyncNetworkStream] = []
    failures: list[Exception] = []

    async def attempt(address: str, over: trio.Event) -> None:
        try:
            stream = await connect(address)
        except _NOT_CONNECTED as error:
            failures.append(error)
            over.set()
            return
        won.append(stream)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                over = trio.Event()
                nursery.start_soon(attempt, address, over)
                with trio.move_on_after(DELAY):
                    await over.wait()
    except BaseException:
        await _close(won)
        raise
    await _close(won[1:])
    if not won:
        raise failures[-1]
    return won[0]


async def _close(streams: Sequence[httpcore.AsyncNetworkStream]) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
        for stream in streams:
            await stream.aclose()
