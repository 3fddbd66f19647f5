"""Measure the peak memory of a mount (VmHWM) for each pattern of reading, with default options.

    scripts/bench --only memory
    python -m scripts.bench_memory [--json FILE] [PATTERN...]

Rules that hold here:
- Each pattern has its own mount and cache.
- The goal for each is `GOAL_MB`, on any number of processors. If one exceeds it, the exit status
  is 1.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ocifs.layers import zstd
from scripts.bench_sample import Sample
from tests.layers.tars import entry, tar
from tests.support.mount import Mounted, mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

GOAL_MB = 128
MB, MIB = 1_000_000, 1 << 20
DICE = random.Random(1)
READERS, PARALLEL = 48, 8
TYPE = "application/vnd.oci.image.layer.v1.tar"


def peak(mount: Mounted) -> float:
    """The peak of the daemon's resident memory, in MB."""
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / MB


def some_text(size: int) -> bytes:
    """Bytes that compress about as well as programs."""
    words = [DICE.randbytes(DICE.randrange(3, 12)) for _ in range(4000)]
    return b"".join(DICE.choices(words, k=size // 6))[:size]


TEXT = some_text(4 * MIB)


def piece(size: int) -> bytes:
    """A random part of the text."""
    start = DICE.randrange(len(TEXT) - size)
    return TEXT[start : start + size]


def small_files(count: int, size: int, name: str = "f") -> bytes:
    """A tar of small files."""
    return tar(*[entry(f"{name}{number}", content=piece(size)) for number in range(count)])


def zstd_with_window(data: bytes, log: int) -> bytes:
    """One frame, as `zstd --ultra --long=LOG` writes it."""
    from ocifs.layers.zstd import zstd as library

    parameter = library.CompressionParameter
    options = {
        parameter.compression_level: 1,
        parameter.window_log: log,
        parameter.enable_long_distance_matching: 1,
    }
    compressor = library.ZstdCompressor(options=options)
    step = 8 * MIB  # written in steps, so that the frame has a window and not a content size
    return (
        b"".join(compressor.compress(data[at : at + step]) for at in range(0, len(data), step))
        + compressor.flush()
    )


def push_image(registry: Registry, name: str, layers: list[tuple[bytes, bytes, str]]) -> None:
    """Push an image. A layer is its tar, the pushed bytes, and the suffix of its media type."""
    diff_ids = [f"sha256:{hashlib.sha256(plain).hexdigest()}" for plain, _, _ in layers]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }

    def pushed(content: bytes, media_type: str) -> dict[str, object]:
        return {
            "mediaType": media_type,
            "digest": push_blob(registry.url, name, content),
            "size": len(content),
        }

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": pushed(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [pushed(packed, TYPE + ending) for _, packed, ending in layers],
    }
    push_manifest(registry.url, name, manifest, "v1")


def push_blobs(registry: Registry, name: str, blobs: list[bytes]) -> None:
    """Push an artifact with these blobs."""
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": push_blob(registry.url, name, blob),
            "size": len(blob),
        }
        for blob in blobs
    ]
    config = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": push_blob(registry.url, name, b"{}"),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x.bench",
        "config": {**config, "size": 2},
        "layers": layers,
    }
    push_manifest(registry.url, name, manifest, "v1")


def read(*paths: Path) -> None:
    """Read files completely, with programs."""
    for start in range(0, len(paths), 500):
        subprocess.run(["cat", *paths[start : start + 500]], stdout=subprocess.DEVNULL, check=True)


def at_once(paths: list[Path]) -> None:
    """Read files in parallel."""
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(read, paths))


def blobs_of(mount: Mounted) -> list[Path]:
    return sorted(mount.path.glob("layers/*/blob"), key=lambda path: int(path.parent.name))


def files_of(mount: Mounted) -> list[Path]:
    return [path for path in sorted((mount.path / "rootfs").iterdir()) if path.is_file()]


def at_random(mount: Mounted) -> None:
    with blobs_of(mount)[0].open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(400):
            os.pread(file.fileno(), 65536, DICE.randrange(size))


def shuffled(mount: Mounted) -> None:
    files = files_of(mount)
    DICE.shuffle(files)
    read(*files)


Pattern = tuple[Callable[[Registry, str], None], Callable[[Mounted], None]]


def one_layer(
    make: Callable[[], bytes], pack: Callable[[bytes], bytes], ending: str
) -> Callable[[Registry, str], None]:
    def push(registry: Registry, name: str) -> None:
        plain = make()
        push_image(registry, name, [(plain, pack(plain), ending)])

    return push


def many_layers(
    count: int, pack: Callable[[bytes], bytes], ending: str
) -> Callable[[Registry, str], None]:
    def push(registry: Registry, name: str) -> None:
        plains = [small_files(150, 100_000, f"layer{number}-") for number in range(count)]
        push_image(registry, name, [(plain, pack(plain), ending) for plain in plains])

    return push


def many_small() -> bytes:
    return small_files(3000, 40_000)


def large_files() -> bytes:
    return tar(*[entry(f"f{number}", content=DICE.randbytes(10 * MIB)) for number in range(10)])


PATTERNS: dict[str, Pattern] = {
    "no reading": (lambda registry, name: push_blobs(registry, name, [b"x"]), lambda mount: None),
    "one large blob, in order": (
        lambda registry, name: push_blobs(registry, name, [DICE.randbytes(MIB) * 192]),
        lambda mount: read(*blobs_of(mount)),
    ),
    "one large blob, at random": (
        lambda registry, name: push_blobs(registry, name, [DICE.randbytes(MIB) * 192]),
        at_random,
    ),
    f"{READERS} blobs side by side": (
        lambda registry, name: push_blobs(
            registry, name, [DICE.randbytes(4 * MIB) for _ in range(READERS)]
        ),
        lambda mount: at_once(blobs_of(mount)),
    ),
    "3,000 small files, gzip": (
        one_layer(many_small, lambda data: gzip.compress(data, 1, mtime=0), "+gzip"),
        lambda mount: read(*files_of(mount)),
    ),
    "3,000 small files, zstd": (
        one_layer(many_small, lambda data: zstd.compress(data, 3), "+zstd"),
        lambda mount: read(*files_of(mount)),
    ),
    "3,000 small files, zstd, shuffled": (
        one_layer(many_small, lambda data: zstd.compress(data, 3), "+zstd"),
        shuffled,
    ),
    "large files, zstd with a window of 8 MiB": (
        one_layer(large_files, lambda data: zstd_with_window(data, 23), "+zstd"),
        lambda mount: read(*files_of(mount)),
    ),
    "large files, zstd with a window of 32 MiB": (
        one_layer(large_files, lambda data: zstd_with_window(data, 25), "+zstd"),
        lambda mount: read(*files_of(mount)),
    ),
    "large files, zstd with a window of 64 MiB": (
        one_layer(large_files, lambda data: zstd_with_window(data, 26), "+zstd"),
        lambda mount: read(*files_of(mount)),
    ),
    "small files, xz": (
        one_layer(
            lambda: small_files(300, 40_000), lambda data: lzma.compress(data, preset=1), "+xz"
        ),
        lambda mount: read(*files_of(mount)),
    ),
    "small files, xz, shuffled": (
        one_layer(
            lambda: small_files(300, 40_000), lambda data: lzma.compress(data, preset=1), "+xz"
        ),
        shuffled,
    ),
    "3,000 small files, gzip, shuffled": (
        one_layer(many_small, lambda data: gzip.compress(data, 1, mtime=0), "+gzip"),
        shuffled,
    ),
    "12 layers at once, zstd": (
        many_layers(12, lambda data: zstd.compress(data, 3), "+zstd"),
        lambda mount: at_once(files_of(mount)[:PARALLEL]),
    ),
    "12 layers at once, gzip": (
        many_layers(12, lambda data: gzip.compress(data, 1, mtime=0), "+gzip"),
        lambda mount: at_once(files_of(mount)[:PARALLEL]),
    ),
}


def patterns(
    registry: Registry, directory: Path, words: Sequence[str] = ()
) -> Iterator[tuple[str, float]]:
    """The peak in MB of each pattern with one of the words in its name."""
    for number, (name, (push, work)) in enumerate(PATTERNS.items()):
        if words and not any(word in name for word in words):
            continue
        repository = f"bench/memory{number}"
        push(registry, repository)
        source = f"{registry.host}/{repository}:v1"
        with (
            tempfile.TemporaryDirectory(dir=directory) as place,
            mounted(source, Path(place, "mnt"), Path(place, "cache")) as mount,
        ):
            work(mount)
            found = round(peak(mount), 1)
        yield name, found


def memory(registry: Registry, directory: Path) -> Iterator[Sample]:
    """The patterns, for scripts/bench."""
    for name, found in patterns(registry, directory):
        yield Sample(f"peak memory: {name}", found, "MB", most=GOAL_MB)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("patterns", nargs="*", help="words in the names of the patterns")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place, running_registry(Path(place)) as registry:
        for name, megabytes in patterns(registry, Path(place), given.patterns):
            found[name] = megabytes
            print(f"{megabytes:8.1f} MB  {name}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if max(found.values(), default=0) > GOAL_MB else 0


if __name__ == "__main__":
    sys.exit(main())
