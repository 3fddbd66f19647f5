"""A proxy in front of a real registry that injects faults of networks and registries.

Rules that hold here:
- Without a fault, a response passes unchanged.
- A fault changes the transfer, never the content of the registry.
- A fault that changes bytes applies only to content with a digest. A client cannot detect a changed
  list.
- Every wait has a bound.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

PATIENCE = 100.0  # seconds until a silent connection is closed
UPSTREAM = 60.0  # seconds for a response of the real registry
RESET = struct.pack("ii", 1, 0)

STATUSES = {
    "500": b"HTTP/1.1 500 Broken\r\n\r\n",
    "502 of html": b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\n\r\n"
    b"<html><body><h1>502 Bad Gateway</h1></body></html>",
    "503 for a second": b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\n\r\n",
    "429 for a second": b"HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\n\r\n",
    "401": b'HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm="soak"\r\n\r\n',
}
WAYS = (
    "refuse",
    "silent",
    "stall",
    "trickle",
    "cut",
    "reset",
    "drip",
    "no http",
    "429 until a date",
    *STATUSES,
)
"""Faults that leave the received content correct."""
SIZES = ("short", "long", "other range", "whole for a part")
"""Faults that the headers or the length of a response reveal."""
LIES = ("corrupt",)
"""Faults that only a digest reveals."""
HELD = "held"
"""The first half of a large body is sent, and the rest after `gate` is set."""
# The size of a reader's first fetch. The size of later fetches depends on the time of the first.
LARGE = 128 << 10


@dataclass(frozen=True)
class Answer:
    """A response of the registry: its head, with line ends, and its body."""

    lines: list[bytes]
    body: bytes

    def header(self, name: bytes) -> bytes:
        return next(
            (
                line[len(name) + 1 :].strip()
                for line in self.lines
                if line.lower().startswith(name + b":")
            ),
            b"",
        )

    def bytes(self, **changed: bytes) -> tuple[bytes, bytes]:
        """The head and body to send, with some headers replaced."""
        new = {name.replace("_", "-").encode(): value for name, value in changed.items()}
        kept = [
            line
            for line in self.lines
            if line.partition(b":")[0].lower() not in (*new, b"connection")
        ]
        more = [name + b": " + value for name, value in new.items()]
        return b"\r\n".join([*kept, *more, b"connection: close", b"", b""]), self.body


@dataclass(frozen=True)
class Part:
    """Bytes [start, stop) of a blob, sent for one request."""

    digest: str
    start: int
    stop: int


def twice(parts: Iterable[Part]) -> list[tuple[Part, Part]]:
    """The pairs of parts of a blob that overlap, in the order of their offsets."""
    ordered = pairwise(sorted(parts, key=lambda part: (part.digest, part.start)))
    return [
        (one, other)
        for one, other in ordered
        if one.digest == other.digest and other.start < one.stop
    ]


@dataclass
class FaultProxy:
    """A running proxy.

    - `fault` applies to the next responses, to each with the probability `share`. "" is no fault.
    - `once` limits it to the first request of each method and path. `met` has the time at which
      each request met a fault, and after `again` seconds it counts as a first one.
    - `parts` are the parts of blobs that were sent, in the order of the responses.
    - `holding` is set while a response is held until `gate` is set.
    """

    upstream: tuple[str, int]
    listener: socket.socket
    fault: str = ""
    share: float = 1.0
    once: bool = False
    met: dict[bytes, float] = field(default_factory=dict)
    again: float = float("inf")
    seed: int = 0
    made: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    parts: list[Part] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accept until the listener is closed."""
        chance = random.Random(self.seed)
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            fault = self.fault if chance.random() < self.share else ""
            self._open.add(client)
            threading.Thread(target=self._one, args=(client, fault), daemon=True).start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _one(self, client: socket.socket, fault: str) -> None:
        with contextlib.suppress(OSError, ValueError), client:
            client.settimeout(PATIENCE)
            self._answer(client, fault)
        self._open.discard(client)

    def _answer(self, client: socket.socket, fault: str) -> None:
        if fault == "refuse" and not self.once:
            self._refuse(client)
            return
        head = read_head(client)
        self.requests += 1
        if fault:
            asked, now = head.partition(b" HTTP/")[0], time.monotonic()
            if self.once and now < self.met.get(asked, -float("inf")) + self.again:
                fault = ""
            else:
                self.met[asked] = now
        by_digest = (
            b"/blobs/sha256:" in head.partition(b"\r\n")[0]
            or b"/manifests/sha256:" in head.partition(b"\r\n")[0]
        )
        if fault in SIZES + LIES and (not by_digest or not head.startswith(b"GET")):
            fault = ""
        if fault and fault != "refuse":
            self.made[fault] += 1
        if fault == "refuse":
            self._refuse(client)
        elif fault == "silent":
            client.recv(1)  # returns when the client closes
        elif fault == "no http":
            client.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")
        elif fault == "429 until a date":
            date = email.utils.formatdate(time.time() + 1, usegmt=True).encode()
            client.sendall(
                b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\nRetry-After: " + date + b"\r\n\r\n"
            )
        elif fault in STATUSES:
            first, _, body = STATUSES[fault].partition(b"\r\n\r\n")
            client.sendall(
                b"%s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                % (first, len(body), body)
            )
        else:
            ask = without(head, b"range") if fault == "whole for a part" else head
            answer = fetch(self.upstream, ask)
            self._note(head, answer)
            self._relay(client, answer, fault)

    def _refuse(self, client: socket.socket) -> None:
        self.made["refuse"] += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _note(self, head: bytes, answer: Answer) -> None:
        asked = re.match(rb"GET /v2/\S+/blobs/(\S+) ", head)
        if asked and answer.lines[0].split()[1] in (b"200", b"206"):
            said = re.match(rb"bytes (\d+)-", answer.header(b"content-range"))
            start = int(said[1]) if said else 0
            self.parts.append(Part(asked[1].decode(), start, start + len(answer.body)))

    def _relay(self, client: socket.socket, answer: Answer, fault: str) -> None:
        head, body = CHANGES.get(fault, Answer.bytes)(answer)
        held = fault == HELD and len(body) >= LARGE
        if fault not in ("stall", "trickle", "cut", "reset", "drip") and not held:
            client.sendall(head + body)
            return
        client.sendall(head + body[: len(body) // 2])
        if held:
            self.holding.set()
            self.gate.wait(PATIENCE)
            client.sendall(body[len(body) // 2 :])
        elif fault == "stall":
            client.recv(1)
        elif fault == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif fault in ("drip", "trickle"):
            rest, step = body[len(body) // 2 :], max(1, len(body) // 20) if fault == "drip" else 1
            for start in range(0, len(rest), step):
                client.sendall(rest[start : start + step])
                time.sleep(0.05 if fault == "drip" else 0.2)  # the fault itself


def _corrupt(answer: Answer) -> tuple[bytes, bytes]:
    middle = len(answer.body) // 2
    head, body = answer.bytes()
    return head, body[:middle] + bytes([body[middle] ^ 0x40]) + body[middle + 1 :] if body else body


def _short(answer: Answer) -> tuple[bytes, bytes]:
    body = answer.body[:-1]
    return answer.bytes(content_length=b"%d" % len(body))[0], body


def _long(answer: Answer) -> tuple[bytes, bytes]:
    body = answer.body + b"more"
    return answer.bytes(content_length=b"%d" % len(body))[0], body


def _other_range(answer: Answer) -> tuple[bytes, bytes]:
    total = answer.header(b"content-range").rpartition(b"/")[2] or b"1"
    return answer.bytes(content_range=b"bytes 1-%d/%s" % (max(1, len(answer.body)), total))


CHANGES: dict[str, Callable[[Answer], tuple[bytes, bytes]]] = {
    "corrupt": _corrupt,
    "short": _short,
    "long": _long,
    "other range": _other_range,
}


def read_head(connection: socket.socket) -> bytes:
    """The head of a request, with the empty line at its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the other side left")
        data += piece
    return data


def without(head: bytes, name: bytes) -> bytes:
    """A head without a header."""
    return b"\r\n".join(
        line for line in head.split(b"\r\n") if not line.lower().startswith(name + b":")
    )


def fetch(upstream: tuple[str, int], head: bytes) -> Answer:
    """Send a request to the real registry, and return the complete response."""
    first, _, rest = without(head, b"connection").partition(b"\r\n")
    with socket.create_connection(upstream, timeout=UPSTREAM) as connection:
        connection.sendall(first + b"\r\nconnection: close\r\n" + rest)
        data = bytearray()
        while piece := connection.recv(1 << 20):
            data += piece
    lines, _, body = bytes(data).partition(b"\r\n\r\n")
    return Answer(lines.split(b"\r\n"), body)


@contextlib.contextmanager
def fault_proxy(upstream: str, seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy in front of `host:port`, on a free loopback port, for the length of the block."""
    host, _, port = upstream.rpartition(":")
    proxy = FaultProxy(
        (host, int(port)), socket.create_server(("127.0.0.1", 0), backlog=256), seed=seed
    )
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
