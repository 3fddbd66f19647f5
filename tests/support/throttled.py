"""A registry with the pace of a long line, in a process of its own, and its log of requests.

    python -m tests.support.throttled LAYOUT [--rate BYTES] [--total BYTES] [--latency SECONDS]

It serves an OCI image layout as the repository `line`. Each connection has a thread.

Rules that hold here:
- A connection sends at most `rate` bytes of bodies per second, and all of them together `total`.
- Each response begins after `latency`, and the first one of a connection after twice that time, as
  after the handshake of TCP.
- The log has one entry for each request, in the order in which they arrived.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

NAME = "line"
PIECE = 32 << 10
_BURST = 0.05  # seconds that a connection may catch up after the machine was busy
_RANGE = re.compile(rb"^range:\s*bytes=(\d+)-(\d*)", re.IGNORECASE | re.MULTILINE)
_HEAD_BYTES = 64 << 10


@dataclass
class Served:
    """A request: what was asked for, how many bytes of a body were sent, and when (seconds)."""

    method: str
    path: str
    start: int = 0
    stop: int = 0
    sent: int = 0
    began: float = 0.0
    ended: float = 0.0


class Bucket:
    """A pace in bytes per second; 0: without a limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            at = max(self._next, now - _BURST)
            self._next = at + count / self._rate
        if at > now:
            time.sleep(at - now)


@dataclass
class Line:
    """The served layout, the limits, and the log."""

    layout: Path
    rate: float
    total: Bucket
    latency: float
    log: list[Served] = field(default_factory=list)

    def find(self, path: str) -> tuple[str, Path] | None:
        """The media type and the file of a manifest or blob."""
        kind, _, reference = path.removeprefix(f"/v2/{NAME}/").partition("/")
        entries = json.loads((self.layout / "index.json").read_text())["manifests"]
        if kind == "manifests" and ":" not in reference:
            annotation = "org.opencontainers.image.ref.name"
            named = [entry for entry in entries if entry["annotations"][annotation] == reference]
            if not named:
                return None
            reference = named[0]["digest"]
        file = self.layout / "blobs" / reference.replace(":", "/")
        if kind not in ("manifests", "blobs") or not file.is_file():
            return None
        if kind == "manifests":
            return json.loads(file.read_bytes())["mediaType"], file
        return "application/octet-stream", file

    def serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection."""
        bucket, is_first, pending = Bucket(self.rate), True, b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, suppress(OSError):
            while True:
                while b"\r\n\r\n" not in pending:
                    received = connection.recv(_HEAD_BYTES)
                    if not received or len(pending) > _HEAD_BYTES:
                        return
                    pending += received
                head, _, pending = pending.partition(b"\r\n\r\n")
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
                if target == "/log":
                    entries = [asdict(entry) for entry in self.log]
                    self.log.clear()
                    _send_json(connection, entries)
                    continue
                entry = Served(method, target.partition("?")[0], began=time.monotonic())
                self.log.append(entry)
                time.sleep(self.latency * (2 if is_first else 1))
                is_first = False
                self._answer(connection, head, entry, bucket)
                entry.ended = time.monotonic()

    def _answer(
        self, connection: socket.socket, head: bytes, entry: Served, bucket: Bucket
    ) -> None:
        found = None if entry.path == "/v2/" else self.find(entry.path)
        if found is None:
            status = b"200 OK" if entry.path == "/v2/" else b"404 Not Found"
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)
            return
        media_type, file = found
        size = file.stat().st_size
        wanted, status, more = _RANGE.search(head), "200 OK", ""
        entry.stop = size
        if wanted is not None:
            entry.start = int(wanted[1])
            entry.stop = min(size, int(wanted[2]) + 1 if wanted[2] else size)
            status = "206 Partial Content"
            more = f"Content-Range: bytes {entry.start}-{entry.stop - 1}/{size}\r\n"
        connection.sendall(
            f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\n{more}"
            f"Content-Length: {entry.stop - entry.start}\r\n\r\n".encode()
        )
        if entry.method == "GET":
            with file.open("rb") as opened:
                self._send(connection, opened.fileno(), entry, bucket)

    def _send(self, connection: socket.socket, file: int, entry: Served, bucket: Bucket) -> None:
        position = entry.start
        while position < entry.stop:
            count = min(PIECE, entry.stop - position)
            bucket.wait(count)
            self.total.wait(count)
            sent = os.sendfile(connection.fileno(), file, position, count)
            position += sent
            entry.sent += sent


def _send_json(connection: socket.socket, value: object) -> None:
    body = json.dumps(value).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@dataclass(frozen=True)
class Throttled:
    """A running server."""

    host: str

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def requests(self) -> list[Served]:
        """The requests since the last call."""
        answer = httpx.get(f"{self.url}/log", trust_env=False, timeout=30)
        return [Served(**entry) for entry in answer.raise_for_status().json()]


@contextmanager
def throttled(
    layout: Path, *, rate: float = 0, total: float = 0, latency: float = 0
) -> Iterator[Throttled]:
    """Serve a layout for the length of the block."""
    command = [sys.executable, "-m", "tests.support.throttled", str(layout)]
    options = {"--rate": rate, "--total": total, "--latency": latency}
    command += [f"{name}={value}" for name, value in options.items()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Throttled(f"127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve an OCI image layout at a limited pace.")
    parser.add_argument("layout", type=Path)
    for name in ("--rate", "--total", "--latency"):
        parser.add_argument(name, type=float, default=0.0)
    chosen = parser.parse_args()
    line = Line(chosen.layout, chosen.rate, Bucket(chosen.total), chosen.latency)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=line.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
