"""Images for tests: an OCI image layout made from tars, with correct digests and diff IDs."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import zstandard

from ocifs.oci import mediatype

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "+gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "+zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "+bzip2": bz2.compress,
    "+xz": lzma.compress,
}
LAYER = "application/vnd.oci.image.layer.v1.tar"


def make_layout(
    directory: Path,
    tars: Sequence[bytes],
    compressions: Sequence[str] = (),
    tag: str = "v1",
    *,
    said: str | None = None,
) -> Path:
    """Write a layout with one image of these layers, the lowest first.

    `compressions` has the compression of each layer, gzip by default. `said` replaces the suffix of
    all media types, which may then be wrong.
    """
    chosen = compressions or ("+gzip",)
    config = {
        "created": "2024-01-02T03:04:05Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
        },
    }
    layers = []
    for number, tar in enumerate(tars):
        form = chosen[number % len(chosen)]
        layers.append(
            put(directory, COMPRESSIONS[form](tar), LAYER + (form if said is None else said))
        )
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": put(directory, json.dumps(config).encode(), mediatype.OCI_CONFIG),
        "layers": layers,
    }
    listed = put(directory, json.dumps(manifest).encode(), mediatype.OCI_MANIFEST)
    listed["annotations"] = {"org.opencontainers.image.ref.name": tag}
    listed["platform"] = {"architecture": "amd64", "os": "linux"}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [listed]}
    (directory / "index.json").write_text(json.dumps(index))
    return directory


def put(directory: Path, content: bytes, media_type: str) -> dict[str, object]:
    """Write a blob, and return its descriptor."""
    encoded = hashlib.sha256(content).hexdigest()
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / encoded).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(content)}
