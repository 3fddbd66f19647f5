"""The HTTP server behind `--metrics ADDRESS`: it answers GET and HEAD of /metrics.

A background task of the mount runs `serve_metrics`; `render` is called on the event loop for each
request. h11 parses the requests.

Rules that hold here:

- One request for each connection. Its size and its time are bounded.
- At most `_CONNECTIONS` connections. Further ones are closed.
- The request is untrusted: nothing of it is logged, and its Host is checked (`_is_host_allowed`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

import h11
import trio

from ocifs.concurrency import guarded
from ocifs.errors import UsageError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 5.0
_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::\d{1,5})?")
_CONNECTIONS = 16
_REQUEST_BYTES = 16 << 10


async def open_listeners(address: tuple[str, int]) -> list[trio.SocketListener]:
    """Listen at an address. Raises UsageError."""
    host, port = address
    try:
        return list(await trio.open_tcp_listeners(port, host=host))
    except OSError as error:
        hint = "another mount may use it: give each mount its own port"
        raise UsageError(
            f"cannot listen at {host}:{port}: {error.strerror or error}", hint=hint
        ) from None


async def serve_metrics(listeners: list[trio.SocketListener], render: Callable[[], bytes]) -> None:
    """Answer requests until cancelled."""
    limiter = trio.CapacityLimiter(_CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        # Clients that wait for their turn would hold any number of descriptors.
        try:
            limiter.acquire_nowait()
        except trio.WouldBlock:
            await stream.aclose()
            return
        try:
            with trio.move_on_after(_SECONDS):
                await _answer(stream, render)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            # The client closed the connection, or sent something else than HTTP.
            pass
        finally:
            limiter.release()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async def handle_guarded(stream: trio.SocketStream) -> None:
        # An error that leaves a handler would end the server.
        await guarded("answering a request for metrics", handle, stream)

    await trio.serve_listeners(handle_guarded, listeners)


def _is_host_allowed(address: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the Host of a request matches the address that received it.

    On loopback, only a loopback address or localhost is allowed. Other names are those of web pages
    in a local browser, which can resolve to loopback (DNS rebinding).
    """
    if not _is_loopback(address.partition("%")[0]):
        return True
    for name, value in headers:
        if name.lower() == b"host":
            host = _HOST.fullmatch(value.decode("latin-1").strip())
            if host is None or not _is_loopback(host[1] or host[2]):
                return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


async def _answer(stream: trio.SocketStream, render: Callable[[], bytes]) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_REQUEST_BYTES)
    event = connection.next_event()
    while event is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(_REQUEST_BYTES))
        event = connection.next_event()
    # The client closed the connection before the end of its request.
    if not isinstance(event, h11.Request):
        return
    path = event.target.partition(b"?")[0]
    status, body = 200, b""
    if not _is_host_allowed(stream.socket.getsockname()[0], event.headers):
        # RFC 9110, section 15.5.20, Misdirected Request.
        status, body = 421, b"use the address of this machine, or localhost\n"
    elif event.method not in (b"GET", b"HEAD"):
        status = 405
    elif path == b"/metrics":
        body = render()
    else:
        status, body = 404, b"the metrics are at /metrics\n"
    headers = [
        ("Content-Type", CONTENT_TYPE),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    parts: list[h11.Response | h11.Data | h11.EndOfMessage] = [
        h11.Response(status_code=status, headers=headers)
    ]
    if event.method != b"HEAD":
        parts.append(h11.Data(body))
    parts.append(h11.EndOfMessage())
    await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
    await stream.send_eof()
    while await stream.receive_some(_REQUEST_BYTES):
        # Closing with unread data would send a reset, which can overtake the response.
        pass
