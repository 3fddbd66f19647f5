"""Proxies that connect every host name to one address, so that tests can use any host name.

Rules that hold here:
- They have real sockets on free loopback ports, and end with the block.
- Requests are recorded.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Proxy:
    """A running proxy.

    `address` is host:port. `asked` has each request with its Proxy-Authorization.
    """

    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def proxy_to(place: str) -> Iterator[Proxy]:
    """A proxy that forwards every CONNECT and every HTTP request to `place` (host:port)."""
    host, _, port = place.partition(":")
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_CONNECT(self) -> None:
            self._note()
            self.send_response(200)
            self.end_headers()
            with socket.create_connection((host, int(port)), 10) as there:
                _relay(self.connection, there)
            self.close_connection = True

        def do_GET(self) -> None:
            self._note()
            with socket.create_connection((host, int(port)), 10) as there:
                path = "/" + self.path.partition("://")[2].partition("/")[2]
                kept = [
                    f"{name}: {value}\r\n"
                    for name, value in self.headers.items()
                    if "proxy" not in name.lower()
                ]
                there.sendall(f"{self.command} {path} HTTP/1.1\r\n{''.join(kept)}\r\n".encode())
                _relay(self.connection, there)
            self.close_connection = True

        do_HEAD = do_GET

        def _note(self) -> None:
            proxy.asked.append(
                (f"{self.command} {self.path}", self.headers.get("proxy-authorization", ""))
            )

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    proxy.address = f"127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()


@contextlib.contextmanager
def socks_to(place: str, login: str = "") -> Iterator[Proxy]:
    """A SOCKS5 proxy (RFC 1928) that forwards every connection to `place`.

    `login` is the NAME:PASSWORD that it requires (RFC 1929).
    """
    host, _, port = place.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(f"127.0.0.1:{listener.getsockname()[1]}")

    def serve(here: socket.socket) -> None:
        with here, contextlib.suppress(OSError):
            taken = here.makefile("rb")
            taken.read(taken.read(2)[1])  # the offered methods
            here.sendall(b"\x05\x02" if login else b"\x05\x00")
            given = ""
            if login:
                taken.read(1)
                given = ":".join(taken.read(taken.read(1)[0]).decode() for _ in range(2))
                here.sendall(b"\x01" + (b"\x00" if given == login else b"\x01"))
            taken.read(4)
            wanted = taken.read(taken.read(1)[0]).decode()
            proxy.asked.append((f"CONNECT {wanted}:{int.from_bytes(taken.read(2), 'big')}", given))
            with socket.create_connection((host, int(port)), 10) as there:
                here.sendall(b"\x05\x00\x00\x01" + bytes(6))
                _relay(here, there)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _relay(here: socket.socket, there: socket.socket) -> None:
    """Forward in both directions until either side closes."""

    def forth() -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)

    threading.Thread(target=forth, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := there.recv(65536):
            here.sendall(data)
    with contextlib.suppress(OSError):
        here.shutdown(socket.SHUT_RDWR)
