"""Sockets for httpcore: connections to permitted addresses, and large reads.

httpcore calls this module from the task of a request. It reads 64 KiB at a time, which in Python
limits a download to a few hundred MB/s. The streams here read up to 256 KiB.

State of a stream: the parser of the current response's head, then of its chunks.

- A host that a registry has chosen is resolved here. Its addresses are checked against `zones`, and
  the connection is made to one of these addresses, without a second resolution.
- Addresses are tried in turn, each after DELAY seconds or after the previous one has failed, with
  alternating families (RFC 8305). trio does the same for other hosts. A dead IPv6 address costs
  DELAY, not the whole timeout.
- Each head of a response passes through `heads`, which bounds it and removes illegal lines.
- A connection that is reused, and ends before the first byte of a response, raises
  `StaleConnection`: the server had closed it, and has not seen the request.
- h11 parses each read at once, so a read is small while it may contain headers, trailers or short
  chunks: a mebibyte of these would block the event loop for a second.
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
# The size of a read. h11 copies each read twice, and there are up to 16 connections to a host.
HEAD_READ = 64 * KIB
BODY_READ = 256 * KIB
CHUNKED_READ = 16 * KIB  # at most 2,700 chunks, which take some milliseconds
_NOT_CONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout)


class StaleConnection(httpcore.ReadError):
    """A reused connection ended without a byte of a response."""


class SocketStream(httpcore.AsyncNetworkStream):
    """A connection with larger reads once the head of a response is complete."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._pending = b""
        self._size = BODY_READ
        self._is_reused = False  # a response has been read from it
        self._has_response = False  # a byte of the response to the last request has arrived

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            if self._pending:
                # As in a read that waits: other tasks get a turn, and a cancellation takes effect.
                await trio.lowlevel.checkpoint()
                return self._chunk(self._pending)
            data = await self._receive(max(max_bytes, self._size), timeout)
            if self._head is None:
                return self._chunk(data)
            passed = self._head.feed(data) if data else self._head.rest()
            if self._head.done or not data:
                passed = self._begin_body(self._head, passed)
            if passed or not data:  # an empty result would mean the end of the stream
                return passed

    async def _receive(self, size: int, timeout: float | None) -> bytes:
        failure: httpcore.ReadError | None = None
        try:
            data = await self._inner.read(size, timeout)
        except httpcore.ReadError as error:
            data, failure = b"", error
        if data:
            self._has_response = True
        elif self._is_reused and not self._has_response:
            raise StaleConnection(str(failure or "the server closed it")) from failure
        elif failure is not None:
            raise failure
        return data

    def _begin_body(self, head: Head, passed: bytes) -> bytes:
        """The last bytes of a head, without the beginning of a chunked body."""
        # h11 parses the bytes after an incomplete head as headers, so reads stay small.
        self._head, self._size = None, BODY_READ if head.complete else HEAD_READ
        self._is_reused = self._is_reused or head.complete
        if not (head.complete and head.chunked):
            return passed
        self._chunks, self._size = Chunks(), CHUNKED_READ
        self._pending = passed[len(passed) - head.body :]
        return passed[: len(passed) - head.body]

    def _chunk(self, data: bytes) -> bytes:
        """The next bytes of a body, few enough to be parsed at once."""
        if self._chunks is None:
            return data
        data, self._pending = data[:CHUNKED_READ], data[CHUNKED_READ:]
        self._chunks.feed(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # The first read after a request begins with a head.
        self._head, self._size = Head(), HEAD_READ
        self._chunks, self._pending = None, b""
        self._has_response = False
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
        except BaseException:
            # httpcore closes the stream after an error, but not if the handshake is cancelled.
            with trio.CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class Backend(httpcore.AsyncNetworkBackend):
    """trio's sockets. `zones`: where the addresses of a host may be; None: anywhere."""

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
    """The addresses of a host that a registry has chosen. Raises AccessDenied outside `zones`."""
    addresses: list[str] = []
    with trio.move_on_after(inf if timeout is None else timeout) as scope:
        results = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(result[4][0]) for result in results))
    if scope.cancelled_caught:
        raise httpcore.ConnectTimeout(f"timed out while resolving {host}")
    for zone in map(zone_of_address, addresses):
        if zone not in zones:
            raise AccessDenied(f"a registry elsewhere redirects to {zone.value}: {host}")
    return alternating(addresses)


def alternating(addresses: Sequence[str]) -> list[str]:
    """Addresses with alternating families, beginning with the family of the first one."""
    if not addresses:
        return []
    like_first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    others = [address for address in addresses if address not in like_first]
    return [address for address in chain(*zip_longest(like_first, others)) if address is not None]


async def connect_first(addresses: Sequence[str], connect: Connect) -> httpcore.AsyncNetworkStream:
    """The first connection that succeeds. Raises the last error if none does."""
    connected: list[httpcore.AsyncNetworkStream] = []
    failures: list[Exception] = []

    async def attempt(address: str, failed: trio.Event) -> None:
        try:
            stream = await connect(address)
        except _NOT_CONNECTED as error:
            failures.append(error)
            failed.set()
            return
        connected.append(stream)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(DELAY):
                    await failed.wait()
    except BaseException:
        # A cancelled caller never gets the connection, so it would stay open.
        await _close(connected)
        raise
    # Two attempts can succeed in the same scheduler step.
    await _close(connected[1:])
    if not connected:
        raise failures[-1]
    return connected[0]


async def _close(streams: Sequence[httpcore.AsyncNetworkStream]) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
        for stream in streams:
            await stream.aclose()
