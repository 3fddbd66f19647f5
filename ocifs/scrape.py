"""The little HTTP server behind `--metrics ADDRESS`: it answers GET and HEAD of /metrics, and
nothing else.

Rules that hold here: one request a connection, bounded in size and time, so many connections and no
more; what it serves is made at the request; nothing that a client sends is logged or believed. h11
says what HTTP is.
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
_AT_A_TIME = 16
_REQUEST_BYTES = 16 << 10


async def open_listeners(address: tuple[str, int]) -> list[trio.SocketListener]:
    """Listen. Raises UsageError where that cannot be done."""
    host, port = address
    try:
        return list(await trio.open_tcp_listeners(port, host=host))
    except OSError as error:
        hint = "another mount may have it: give each its own port"
        raise UsageError(
            f"cannot listen at {host}:{port}: {error.strerror or error}", hint=hint
        ) from None


async def serve_metrics(listeners: list[trio.SocketListener], render: Callable[[], bytes]) -> None:
    """Answer until cancelled."""
    limiter = trio.CapacityLimiter(_AT_A_TIME)

    async def handle(stream: trio.SocketStream) -> None:
        try:
            limiter.acquire_nowait()
        except trio.WouldBlock:
            await stream.aclose()
            return
        try:
            with trio.move_on_after(_SECONDS):
                await _answer(stream, render)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            pass  # the client went away or speaks no HTTP: nobody is to be told
        finally:
            limiter.release()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async def handle_guarded(stream: trio.SocketStream) -> None:
        await guarded("answering a request for metrics", handle, stream)

    await trio.serve_listeners(handle_guarded, listeners)


def _may_ask(address: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request is for the name that it came to.

    At loopback that is a loopback address or localhost. Any other name is that of a page in a
    browser on this machine, whose address was changed to loopback (DNS rebinding).
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
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


async def _answer(stream: trio.SocketStream, render: Callable[[], bytes]) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_REQUEST_BYTES)
    event = connection.next_event()
    while event is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(_REQUEST_BYTES))
        event = connection.next_event()
    if not isinstance(event, h11.Request):
        return
    path = event.target.partition(b"?")[0]
    status, body = 200, b""
    if not _may_ask(stream.socket.getsockname()[0], event.headers):
        status, body = (
            421,
            b"the metrics of this machine are asked for by its address, or as localhost\n",
        )
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
        pass  # what else comes is read until its end, so that no reset overtakes the answer
