"""Make a cache for test_formats.py with the code of the current commit: mount and read two images,
and pack the cache.

    python -m tests.store.formats.make tests/store/formats/COMMIT.tar.xz

Make one before each change of a format in the cache's directory, with the code before the change.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import zstandard

from tests.layers.tars import DIRECTORY, entry, tar
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

HOST = "127.0.0.1:5199"  # names in the cache are those of this registry
NAME = "old/image"
TYPE = "application/vnd.oci.image.layer.v1.tar"
_DICE = random.Random(8)
FILES = {
    name: bytes(_DICE.choices(b"abcdefgh \n", k=size))
    for name, size in (("d/a", 3000), ("d/b", 500), ("e", 0), ("x", 20000))
} | {"late": b"late\n"}
BLOB = b"".join(b"%08d\n" % number for number in range(600_000))
_FIRST = tar(
    entry("d", DIRECTORY), *[entry(name, content=FILES[name]) for name in ("d/a", "d/b", "e")]
)
_SECOND = tar(entry("x", content=FILES["x"]))
_THIRD = tar(entry("late", content=FILES["late"]))
LAYERS = [
    (_FIRST, gzip.compress(_FIRST, mtime=0), "+gzip"),
    (_SECOND, lzma.compress(_SECOND), "+xz"),
    (_THIRD, zstandard.ZstdCompressor().compress(_THIRD), "+zstd"),
]


def push(registry: Registry, layers: list[tuple[bytes, bytes, str]]) -> None:
    """Push both images, with these layers as `v1`."""

    def pushed(content: bytes, media_type: str) -> dict[str, object]:
        return {
            "mediaType": media_type,
            "digest": push_blob(registry.url, NAME, content),
            "size": len(content),
        }

    diff_ids = [f"sha256:{hashlib.sha256(plain).hexdigest()}" for plain, _, _ in layers]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    base: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
    }
    image = base | {
        "config": pushed(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [pushed(packed, TYPE + ending) for _, packed, ending in layers],
    }
    push_manifest(registry.url, NAME, image, "v1")
    artifact = base | {
        "artifactType": "application/x.test",
        "config": pushed(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [pushed(BLOB, "application/octet-stream")],
    }
    push_manifest(registry.url, NAME, artifact, "blob")


def main() -> int:
    target = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "registry").mkdir()
        (work / "cache").mkdir(mode=0o700)
        with running_registry(work / "registry", port=int(HOST.partition(":")[2])) as registry:
            push(registry, LAYERS)
            with mounted(f"{HOST}/{NAME}", work / "mnt", work / "cache") as mount:
                tags = mount.path / "_tags"
                read = [str(path) for path in (tags / "v1" / "rootfs").rglob("*") if path.is_file()]
                subprocess.run(["cat", *read], stdout=subprocess.DEVNULL, check=True)
                with (tags / "blob" / "layers" / "0" / "blob").open("rb") as file:
                    file.read(1000)
        kept = [
            "--sparse",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--mtime=@1700000000",
            "-cJf",
            str(target),
            "v1",
        ]
        subprocess.run(["tar", "-C", str(work / "cache" / "ocifs"), *kept], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
