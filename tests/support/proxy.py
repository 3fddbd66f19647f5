"""A proxy in which every name is one place: tests reach hosts of any name through it, as people do behind a company's proxy.

Rules that hold here: real sockets, on a loopback port of its own; what it was asked is recorded; ends with the block.
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
    """A running proxy: `address` is host:port; `asked` what it was asked, each with the Proxy-Authorization that came along."""

    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def proxy_to(place: str) -> Iterator[Proxy]:
    """A proxy that takes every CONNECT, and every plain request, to `place` (host:port)."""
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
                kept = [f"{name}: {value}\r\n" for name, value in self.headers.items() if "proxy" not in name.lower()]
                there.sendall(f"{self.command} {path} HTTP/1.1\r\n{''.join(kept)}\r\n".encode())
                _relay(self.connection, there)
            self.close_connection = True

        do_HEAD = do_GET

        def _note(self) -> None:
            proxy.asked.append((f"{self.command} {self.path}", self.headers.get("proxy-authorization", "")))

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    proxy.address = f"127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()


def _relay(here: socket.socket, there: socket.socket) -> None:
    """Both ways, until either side has had enough."""

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
