"""Bytes over HTTP: an httpx client that reads its sockets in large pieces, and whose every failure is one of our errors.

httpcore asks its sockets for 64 KiB at a time, which in Python limits a download to a few hundred MB/s; its pool takes a network
backend, and ours asks for a mebibyte.

Rules that hold here: redirects are never followed by httpx, since it would decide what goes along; content is never decoded; no
exception of httpx, httpcore, ssl or the operating system leaves this module as itself.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import httpcore
import httpx

from ocifs import __version__
from ocifs.errors import ConnectionRefused, Malformed, OcifsError, RegistryFailed, Unreachable
from ocifs.settings import MIB, Timing

SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

USER_AGENT = f"ocifs/{__version__}"


class _LargeReads(httpcore.AsyncNetworkStream):
    """A stream whose reads are large."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max(max_bytes, MIB), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
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
    """trio's sockets, read in large pieces."""

    def __init__(self) -> None:
        self._inner = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _LargeReads(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _LargeReads(await self._inner.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Transport(httpx.AsyncBaseTransport):
    """httpx's own transport but for the network backend, which that one gives no way to choose."""

    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30,
            network_backend=_Backend(),
        )

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
        answer = await self._pool.handle_async_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer, in the pieces in which it comes."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


def make_client(context: ssl.SSLContext, connections: int, timing: Timing) -> httpx.AsyncClient:
    """A client for one registry and wherever it redirects to."""
    stall = timing.stall_timeout
    return httpx.AsyncClient(
        transport=_Transport(context, connections),
        timeout=httpx.Timeout(connect=timing.connect_timeout, read=stall, write=stall, pool=timing.max_wait),
        follow_redirects=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


@asynccontextmanager
async def sent(client: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    """Send a request and give its answer, whose body is still to come; closed at the end, whatever happens."""
    with our_errors(str(request.url.host)):
        answer = await client.send(request, stream=True)
    try:
        yield answer
    finally:
        await answer.aclose()


async def pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes, not decoded. Raises Unreachable when it ends early."""
    with our_errors(str(answer.request.url.host)):
        async for piece in answer.aiter_raw():
            yield piece


@contextmanager
def our_errors(host: str) -> Iterator[None]:
    """Turn what httpx, httpcore, ssl and the operating system raise into our errors."""
    try:
        yield
    except OcifsError:
        raise
    except (
        httpx.HTTPError,
        httpx.InvalidURL,
        httpx.StreamError,
        httpcore.ProtocolError,
        OSError,
        ssl.SSLError,
    ) as error:
        raise _translate(error, host) from None
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.UnsupportedProtocol) as error:
        raise _translate(error, host) from None


def _translate(error: Exception, host: str) -> OcifsError:  # noqa: PLR0911 (a table of cases)
    causes = list(_causes(error))
    text = next((str(cause) for cause in causes if str(cause)), type(error).__name__)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        hint = "add its certificate authority with --ca-file; for a registry without TLS use --plain-http"
        return Unreachable(f"TLS with {host} fails: {text}", hint=hint)
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        return ConnectionRefused(f"{host} refuses connections", hint="is the registry running, and is the port right?")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Unreachable(f"the name {host} cannot be resolved", hint="is it spelt right?")
    if isinstance(error, httpcore.ConnectTimeout | httpx.ConnectTimeout):
        return Unreachable(f"{host} does not answer")
    if isinstance(error, httpcore.TimeoutException | httpx.TimeoutException):
        return Unreachable(f"{host} fell silent")
    if isinstance(error, httpcore.RemoteProtocolError | httpx.RemoteProtocolError):
        return Unreachable(f"{host} broke off: {text}")
    if isinstance(
        error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpcore.UnsupportedProtocol | httpcore.ProtocolError
    ):
        return Malformed(f"{host} sent us somewhere that is no place: {text}")
    if isinstance(error, httpx.StreamError):
        return RegistryFailed(f"the answer of {host} cannot be read: {text}")
    return Unreachable(f"the connection with {host} failed: {text}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and what trio's happy eyeballs collected below it."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _causes(inner)
        error = error.__cause__ or error.__context__
