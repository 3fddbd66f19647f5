"""A server on a real socket with scripted responses, for the faults of registries.

Rules that hold here:
- One handler is called with the head of each request.
- It sends raw bytes, so it can violate HTTP.
- Every connection ends with the block.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """The head of a request. The names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """The bytes to send, and the fate of the connection after them.

    It is closed (`close`), reset (`reset`), left open and silent (`stall`), or reused for the next
    request (`keep`). `slowly` is the number of seconds for each byte of the body.
    """

    data: bytes
    then: str = "close"
    slowly: float = 0.0


Handler = Callable[[Request], Reply]


def http(status: int, body: bytes = b"", then: str = "close", **headers: str) -> Reply:
    """A well-formed response. Underscores in the names of headers become hyphens.

    Content-Length is the length of the body by default.
    """
    given = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    given.setdefault("content-length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    ended = "" if then == "keep" else "connection: close\r\n"
    return Reply(f"HTTP/1.1 {status} Said\r\n{lines}{ended}\r\n".encode() + body, then)


@dataclass
class FaultServer:
    """A running server. `host` is host:port, and `requests` are the requests so far."""

    handler: Handler
    listener: socket.socket
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    plain: bool = False
    connections: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        """Serve until the listener is closed."""
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            reply = Reply(b"", "keep")
            while reply.then == "keep":
                request = _read(connection, self.plain)
                self.requests.append(request)
                reply = self.handler(request)
                _send(connection, reply)
            if reply.then == "stall":
                self._open.append(connection)
                return
            if reply.then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def _send(connection: socket.socket, reply: Reply) -> None:
    head, between, body = reply.data.partition(b"\r\n\r\n")
    if not reply.slowly:
        return connection.sendall(reply.data)
    connection.sendall(head + between)
    for number in range(len(body)):
        time.sleep(reply.slowly)  # the fault itself
        connection.sendall(body[number : number + 1])
    return None


def _read(connection: socket.socket, plain: bool = False) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the client left")
        data += piece
        if plain and data.startswith(
            b"\x16\x03"
        ):  # a TLS handshake, which HTTP servers reject immediately
            connection.close()
            raise OSError("a client that speaks TLS")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    left = int(headers.get("content-length", "0")) - len(body)
    while left > 0:  # closing a connection with unread bytes would reset it
        left -= len(connection.recv(left)) or left
    return Request(method, target, headers)


def in_turn(*replies: Reply) -> Handler:
    """Each of the replies once, and the last one for all further requests."""
    left = list(replies)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


@contextlib.contextmanager
def fault_server(
    handler: Handler,
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    *,
    plain: bool = False,
) -> Iterator[FaultServer]:
    """A server on a free port, for the length of the block.

    With `plain`, it closes a connection that begins with a TLS handshake.
    """
    server = FaultServer(handler, socket.create_server((address, 0)), tls=tls, plain=plain)
    threading.Thread(target=server.accept, daemon=True).start()
    try:
        yield server
    finally:
        server.close()
