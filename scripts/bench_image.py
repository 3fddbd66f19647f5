"""Images for measurements: Debian root filesystems from mmdebstrap, pushed to a registry.

Rules that hold here:
- The root filesystems take minutes to build, and are cached in `~/.cache/ocifs-dev`.
- A missing program ends the run, with a message that names its package.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocifs.oci import mediatype
from tests.support.push import push_blob, push_manifest

KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocifs-dev"
TOOLS = ("python3", "perl", "git")
NODE = ("nodejs",)
_CHUNK = 64 << 10


def needs(*programs: str) -> None:
    """End the run if a program is missing."""
    packages = {"igzip": "isal", "docker-registry": "docker-registry"}
    missing = [packages.get(each, each) for each in programs if shutil.which(each) is None]
    if missing:
        sys.exit(f"this measurement needs: apt-get install {' '.join(missing)}")


def debian_tar(packages: Sequence[str]) -> Path:
    """The tar of a small Debian with these packages.

    The first call takes about three minutes, and needs root.
    """
    path = KEPT / f"debian-{'-'.join(packages)}.tar"
    if not path.exists():
        needs("mmdebstrap")
        print(f"building {path} (once)", file=sys.stderr)
        KEPT.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".making.tar")
        include = ",".join(packages)
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={include}",
            "bookworm",
            str(making),
        ]
        subprocess.run(command, check=True)
        making.rename(path)
    return path


def compressed(path: Path) -> Path:
    """The file compressed with gzip: one member, default level."""
    packed = path.with_suffix(".tar.gz")
    if not packed.exists():
        making = packed.with_suffix(".making")
        with (
            path.open("rb") as source,
            gzip.GzipFile(making, "wb", compresslevel=6, mtime=0) as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        making.rename(packed)
    return packed


def push_gzip(url: str, repository: str, tar: Path) -> str:
    """Push an image with one layer as `latest`, and return the layer's digest."""
    plain = hashlib.sha256(tar.read_bytes()).hexdigest()
    layer = compressed(tar).read_bytes()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain}"]},
    }
    body = json.dumps(config).encode()
    digest = push_blob(url, repository, layer)
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {
            "mediaType": mediatype.OCI_CONFIG,
            "digest": push_blob(url, repository, body),
            "size": len(body),
        },
        "layers": [{"mediaType": mediatype.OCI_LAYER_GZIP, "digest": digest, "size": len(layer)}],
    }
    push_manifest(url, repository, manifest, "latest")
    return digest


@dataclass
class Line:
    """A connection to a registry through a proxy that counts bytes, and may limit their rate.

    `received` is the number of bytes from the registry so far.
    """

    host: str
    received: int = 0
    requests: int = 0


@contextlib.contextmanager
def line_to(host: str, rate: float | None = None) -> Iterator[Line]:
    """A port on loopback that forwards to `host`, with at most `rate` bytes a second in total."""
    name, _, port = host.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    line = Line(f"127.0.0.1:{listener.getsockname()[1]}")
    pace = _Pace(rate)

    def answer(client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection((name, int(port))) as server:
            threading.Thread(target=_ask, args=(client, server, line), daemon=True).start()
            while data := server.recv(_CHUNK):
                pace.wait(len(data))
                line.received += len(data)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield line
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _ask(client: socket.socket, server: socket.socket, line: Line) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(_CHUNK):
            line.requests += data.count(b" HTTP/1.1\r\n")
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)


class _Pace:
    """A limit on bytes a second, shared by all connections."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0

    def wait(self, count: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(now, self._free) + count / self._rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))
