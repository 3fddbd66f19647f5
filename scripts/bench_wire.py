"""Measure transfers over a long line, whose server limits each connection, or all of them together.

    scripts/bench --only wire
    OCIFS_BENCH_BEFORE=PROGRAM scripts/bench --only wire    compared with another ocifs as well

Rules that hold here:
- The server is a process of its own (tests/support/throttled.py). Its log has the requests and
  bytes.
- Each measurement has its own cache. Content is compared by its digest after the clock has stopped.
- The peers run in the same run. One that is not installed is skipped.
- Programs are compiled beforehand: bytecode is written and used, as after an installation.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from isal import igzip

from ocifs.oci import mediatype
from scripts.bench_image import KEPT
from scripts.bench_sample import Sample
from tests.support.throttled import NAME, Throttled, throttled

MB = 1_000_000
SIZE = 300 * MB
EACH, LATENCY = 20 * MB, 0.05  # of a usual storage host on another continent
SLOW = 3 * MB  # of a slow line, shared by all connections
SLOW_SIZE = 12 * MB
RANGES = 8
LARGE, MOST_REQUESTS = 1 << 30, 100
IMAGE = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
OCTETS, CONFIG = "application/octet-stream", "application/vnd.oci.empty.v1+json"


@dataclass
class Served:
    """An OCI image layout under construction."""

    directory: Path
    entries: list[dict[str, object]] = field(default_factory=list)

    def put(self, content: bytes) -> dict[str, object]:
        """Add a blob, and return its descriptor without a type."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.directory / "blobs" / "sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def add(self, tag: str, layers: Sequence[tuple[str, bytes]], config: bytes = b"{}") -> str:
        """Add a manifest, and return the digest of its first layer."""
        kind = CONFIG if config == b"{}" else mediatype.OCI_CONFIG
        parts = [{"mediaType": layer_type, **self.put(layer)} for layer_type, layer in layers]
        manifest: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": kind, **self.put(config)},
            "layers": parts,
        }
        if kind == CONFIG:
            manifest["artifactType"] = "application/vnd.example.data"
        named = {"org.opencontainers.image.ref.name": tag}
        descriptor = self.put(json.dumps(manifest).encode())
        self.entries.append(
            {"mediaType": mediatype.OCI_MANIFEST, **descriptor, "annotations": named}
        )
        index = {"schemaVersion": 2, "manifests": self.entries}
        (self.directory / "index.json").write_text(json.dumps(index))
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return str(parts[0]["digest"])


@dataclass(frozen=True)
class Program:
    """An ocifs, and a directory for its caches."""

    command: tuple[str, ...]
    place: Path

    @contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """The environment with a cache of its own."""
        with tempfile.TemporaryDirectory(dir=self.place) as cache:
            environment = {**os.environ, "XDG_CACHE_HOME": cache, "XDG_STATE_HOME": cache}
            # PYTHONPATH would replace the modules of another ocifs.
            for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
                environment.pop(name, None)
            yield environment

    def run(self, *arguments: str) -> float:
        """The seconds of a command with an empty cache."""
        with self.environment() as environment:
            return timed([*self.command, *arguments], environment)

    @contextmanager
    def mounted(self, source: str) -> Iterator[Path]:
        """A mount with an empty cache."""
        with self.environment() as environment, tempfile.TemporaryDirectory() as point:
            timed([*self.command, "mount", source, point], environment)
            try:
                yield Path(point)
            finally:
                timed([*self.command, "umount", point], environment)


@dataclass(frozen=True)
class Programs:
    """This ocifs, and an earlier one if there is one."""

    now: Program
    before: Program | None


@dataclass(frozen=True)
class Image:
    """The only layer of an image."""

    digest: str
    size: int


def timed(command: Sequence[str], environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(
        command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def curl(line: Throttled, digest: str, size: int, ranges: int) -> float:
    """The seconds of `ranges` concurrent downloads of a part each."""
    url = f"{line.url}/v2/{NAME}/blobs/{digest}"
    cuts = [size * number // ranges for number in range(ranges + 1)]

    def download(number: int) -> None:
        span = f"{cuts[number]}-{cuts[number + 1] - 1}"
        timed(["curl", "-sSf", "--noproxy", "*", "-r", span, "-o", os.devnull, url])

    began = time.perf_counter()
    with ThreadPoolExecutor(ranges) as pool:
        list(pool.map(download, range(ranges)))
    return time.perf_counter() - began


def read(path: Path, digest: str) -> tuple[float, float]:
    """The seconds to read a file from end to end, and until its first bytes."""
    pieces, first = [], 0.0
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            first = first or time.perf_counter() - began
            pieces.append(piece)
    seconds = time.perf_counter() - began
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    if digest != f"sha256:{hasher.hexdigest()}":
        raise RuntimeError(f"{path} has other content than is served")
    return seconds, first


def peers(line: Throttled, place: Path, tag: str) -> Iterator[tuple[str, float]]:
    """The seconds of the tools that are installed."""
    source, target = f"{line.host}/{NAME}:{tag}", str(place / "copied")
    skopeo = ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests"]
    skopeo.append("--src-tls-verify=false")
    crane = next(iter(sorted(KEPT.glob("crane-v*/crane"))), None) or shutil.which("crane")
    for name, command in (
        ("skopeo copy", [*skopeo, f"docker://{source}", f"oci:{target}:{tag}"]),
        ("crane pull", [str(crane), "pull", "--insecure", "--format=oci", source, target]),
    ):
        if not shutil.which(command[0]):
            print(f"skipped: {name} is not installed", file=sys.stderr)
            continue
        yield name, timed(command)
        shutil.rmtree(target, ignore_errors=True)


def transfers(line: Throttled, program: Program, digest: str) -> Iterator[Sample]:
    """A reader, prefetch and export of a blob of 300 MB."""
    what, source = "300 MB at 20 MB/s a connection, 50 ms", f"{line.host}/{NAME}:data"
    parallel, single = curl(line, digest, SIZE, RANGES), curl(line, digest, SIZE, 1)
    with program.mounted(source) as point:
        path = point / "layers" / "0" / "blob"
        path.stat()
        line.requests()
        reader, _ = read(path, digest)
        sent = [entry for entry in line.requests() if entry.path.endswith(digest)]
    yield Sample(f"{what}: one reader", reader, "s", "curl, 8 ranges", parallel, most_ratio=1.6)
    yield Sample(f"{what}: one reader", reader, "s", "curl", single)
    yield Sample(
        f"{what}: fetched",
        sum(entry.sent for entry in sent) / MB,
        "MB",
        "the blob",
        SIZE / MB,
        most_ratio=1,
    )
    prefetch = program.run("prefetch", source)
    with tempfile.TemporaryDirectory(dir=program.place) as place:
        export = program.run("export", source, f"oci:{place}/out")
    for name, seconds in (("prefetch", prefetch), ("export", export)):
        yield Sample(f"{what}: {name}", seconds, "s", "curl, 8 ranges", parallel, most_ratio=1.3)
    for name, seconds in peers(line, program.place, "data"):
        yield Sample(f"{what}: export", export, "s", name, seconds)


def requests(layout: Path, program: Program, digest: str) -> Iterator[Sample]:
    """The requests of a reader of a blob of 1 GiB."""
    with throttled(layout, rate=EACH * 2, latency=LATENCY) as line:
        with program.mounted(f"{line.host}/{NAME}:large") as point:
            path = point / "layers" / "0" / "blob"
            path.stat()
            line.requests()
            read(path, digest)
        count = sum(entry.path.endswith(digest) for entry in line.requests())
    yield Sample("1 GiB, one reader: requests", count, "", "the limit", MOST_REQUESTS, most_ratio=1)


def first_look(line: Throttled, programs: Programs, image: Image) -> Iterator[Sample]:
    """The first listing of a gzip image of one layer."""

    def look(program: Program) -> float:
        with program.mounted(f"{line.host}/{NAME}:image") as point:
            return timed(["find", str(point / "rootfs"), "-printf", "%p %s\\n"])

    what = f"first find in a gzip image of {image.size / MB:.0f} MB"
    seconds = look(programs.now)
    yield Sample(what, seconds, "s", "curl", curl(line, image.digest, image.size, 1))
    if programs.before is not None:
        yield Sample(what, seconds, "s", "before", look(programs.before), most_ratio=1 / 3)


def shared(layout: Path, programs: Programs, digest: str) -> Iterator[Sample]:
    """A line whose pace all connections share: nothing is gained, and nothing must be lost."""
    with throttled(layout, total=SLOW, latency=LATENCY) as line:

        def measure(program: Program) -> tuple[float, float, float]:
            with program.mounted(f"{line.host}/{NAME}:small") as point:
                path = point / "layers" / "0" / "blob"
                path.stat()
                line.requests()
                seconds, first = read(path, digest)
            sent = sum(entry.sent for entry in line.requests() if entry.path.endswith(digest))
            return seconds, first, sent / MB

        ours = measure(programs.now)
        peers = [("curl", (curl(line, digest, SLOW_SIZE, 1), None, SLOW_SIZE / MB))]
        if programs.before is not None:
            peers.append(("before", measure(programs.before)))
    what = f"{SLOW_SIZE / MB:.0f} MB at {SLOW / MB:.0f} MB/s in all"
    for name, theirs in peers:
        for label, unit, mine, other in zip(
            ("", ": first MiB", ": fetched"), ("s", "s", "MB"), ours, theirs, strict=True
        ):
            if other is not None:
                yield Sample(f"{what}{label}", mine, unit, name, other, most_ratio=1.1)


def loopback(layout: Path, programs: Programs, digest: str) -> Iterator[Sample]:
    """The same blob without limits."""
    with throttled(layout) as line:

        def measure(program: Program) -> float:
            with program.mounted(f"{line.host}/{NAME}:data") as point:
                path = point / "layers" / "0" / "blob"
                path.stat()
                return read(path, digest)[0]

        ours = measure(programs.now)
        what = "300 MB on loopback: one reader"
        if programs.before is not None:
            yield Sample(what, ours, "s", "before", measure(programs.before), most_ratio=1.1)
        for name, seconds in peers(line, programs.now.place, "data"):
            limit = 0.75 if name == "skopeo copy" else None
            yield Sample(what, ours, "s", name, seconds, most_ratio=limit)


def gzip_layer() -> bytes:
    """A layer of files of which half can be compressed."""
    dice, words = random.Random(7), [b"%x " % number for number in range(4096)]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for number in range(2000):
            info = tarfile.TarInfo(f"usr/share/{number // 100}/{number}")
            body = dice.randbytes(80_000) + b"".join(dice.choices(words, k=18_000))
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return igzip.compress(content.getvalue(), 1)


def wire(directory: Path) -> Iterator[Sample]:
    """All measurements of long lines."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        place = Path(name)
        served = Served(place / "layout")
        data = served.add("data", [(OCTETS, os.urandom(SIZE))])
        small = served.add("small", [(OCTETS, os.urandom(SLOW_SIZE))])
        large = served.add("large", [(OCTETS, os.urandom(LARGE))])
        layer = gzip_layer()
        image = Image(served.add("image", [(mediatype.OCI_LAYER_GZIP, layer)], IMAGE), len(layer))
        before = os.environ.get("OCIFS_BENCH_BEFORE")
        programs = Programs(
            Program((sys.executable, "-m", "ocifs"), place),
            Program((before,), place) if before else None,
        )
        for program in (programs.now, programs.before):
            if program is not None:  # compiles the modules
                program.run("--version")
        with throttled(served.directory, rate=EACH, latency=LATENCY) as line:
            yield from transfers(line, programs.now, data)
            yield from first_look(line, programs, image)
        yield from requests(served.directory, programs.now, large)
        yield from shared(served.directory, programs, small)
        yield from loopback(served.directory, programs, data)
