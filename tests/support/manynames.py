"""A registry with many names, in a process of its own, which counts its requests.

    python -m tests.support.manynames COUNT

COUNT repositories are in 100 namespaces, and `group000/many` has COUNT tags. Lists have pages. All
tags are of one manifest.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx

PAGE = 1_000
MANY_TAGS = "group000/many"
TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": "sha256:" + hashlib.sha256(b"{}").hexdigest(),
    "size": 2,
}
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": TYPE, "config": CONFIG, "layers": []}
).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class _Registry(ThreadingHTTPServer):
    """The server, with its sorted names and the number of its requests."""

    daemon_threads = True

    def __init__(self, count: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        repositories = [f"group{number % 100:03}/repo{number:08}" for number in range(count)]
        self.repositories = sorted([*repositories, MANY_TAGS])
        self.tags = sorted(f"v{number}" for number in range(count))
        self.requests = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # a response is sent at once
    disable_nagle_algorithm = True
    server: _Registry

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/count":
            body, self.server.requests = b"%d" % self.server.requests, 0
            self._send(200, body)
            return
        self.server.requests += 1
        if url.path == "/v2/":
            self._send(200, b"{}")
        elif url.path == "/v2/_catalog":
            self._list("repositories", self.server.repositories)
        elif url.path.endswith("/tags/list"):
            many = url.path == f"/v2/{MANY_TAGS}/tags/list"
            self._list("tags", self.server.tags if many else ["v1"])
        elif "/manifests/" in url.path:
            self._send(200, MANIFEST, ("Docker-Content-Digest", DIGEST), ("Content-Type", TYPE))
        else:
            self._send(404, b"{}")

    def _list(self, field: str, names: list[str]) -> None:
        query = parse_qs(urlsplit(self.path).query)
        size = min(PAGE, int(query.get("n", [str(PAGE)])[0]))
        start = bisect_right(names, query["last"][0]) if "last" in query else 0
        page = names[start : start + size]
        path = urlsplit(self.path).path
        link = f'<{path}?n={size}&last={page[-1]}>; rel="next"' if page else ""
        is_last = start + size >= len(names)
        self._send(200, json.dumps({field: page}).encode(), *([] if is_last else [("Link", link)]))

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@dataclass(frozen=True)
class ManyNames:
    """A running registry."""

    host: str

    def requests(self) -> int:
        """The number of requests since the last call."""
        return int(httpx.get(f"http://{self.host}/count", trust_env=False, timeout=30).text)


@contextmanager
def many_names(count: int) -> Iterator[ManyNames]:
    """Run a registry with this many repositories and tags for the length of the block."""
    command = [sys.executable, "-m", "tests.support.manynames", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield ManyNames(f"127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


if __name__ == "__main__":
    registry = _Registry(int(sys.argv[1]))
    print(registry.server_port, flush=True)
    registry.serve_forever()
