"""Make the example, an OCI image layout.

    python3 scripts/example.py DIRECTORY

It has an image for two platforms, a chart, a WebAssembly module, notes and a signature.

Rules that hold here:
- Only the standard library is used, and no network.
- The bytes are the same on every run, and so are the digests, except those of compressed layers,
  which depend on the version of zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

OCI = "application/vnd.oci."
MANIFEST, INDEX = OCI + "image.manifest.v1+json", OCI + "image.index.v1+json"
CONFIG, LAYER, EMPTY = (
    OCI + "image.config.v1+json",
    OCI + "image.layer.v1.tar+gzip",
    OCI + "empty.v1+json",
)
TITLE, REF_NAME = "org.opencontainers.image.title", "org.opencontainers.image.ref.name"
CREATED = "2024-01-01T00:00:00Z"
EPOCH = 1704067200  # CREATED, in seconds
WASM = b"\0asm\1\0\0\0"  # the smallest valid module: magic and version


class Entry(TypedDict, total=False):
    """A descriptor as JSON (image-spec descriptor.md)."""

    mediaType: str
    digest: str
    size: int
    platform: dict[str, str]
    annotations: dict[str, str]


class Layout:
    """An image layout under construction."""

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.listed: list[Entry] = []

    def blob(self, media_type: str, content: bytes, title: str = "") -> Entry:
        """Add a blob, and return its descriptor."""
        name = hashlib.sha256(content).hexdigest()
        (self.blobs / name).write_bytes(content)
        entry = Entry(mediaType=media_type, digest=f"sha256:{name}", size=len(content))
        if title:
            entry["annotations"] = {TITLE: title}
        return entry

    def document(self, media_type: str, value: Mapping[str, object]) -> Entry:
        """Add a JSON document, and return its descriptor."""
        return self.blob(media_type, json.dumps(value, indent=2).encode())

    def manifest(self, config: Entry, layers: list[Entry], **more: object) -> Entry:
        """Add a manifest, and return its descriptor."""
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            **more,
            "config": config,
            "layers": layers,
        }
        return self.document(MANIFEST, value)

    def list_as(self, entry: Entry, tag: str = "") -> None:
        """Add a manifest to index.json, with a tag if there is one."""
        self.listed.append({**entry, "annotations": {REF_NAME: tag}} if tag else entry)

    def finish(self) -> None:
        """Write oci-layout and index.json."""
        (self.root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.listed}
        (self.root / "index.json").write_text(json.dumps(index, indent=2))


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, with fixed times and owners."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), EPOCH, 0o644
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def image(layout: Layout, architecture: str) -> Entry:
    """Add an image with two layers. The second removes a file of the first."""
    first = {"etc/greeting": b"hello\n", "etc/old": b"removed by the next layer\n"}
    second = {"etc/.wh.old": b"", "etc/architecture": architecture.encode() + b"\n"}
    tars = [tar(first), tar(second)]
    config = layout.document(
        CONFIG,
        {
            "created": CREATED,
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/cat", "/etc/greeting"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": ["sha256:" + hashlib.sha256(each).hexdigest() for each in tars],
            },
        },
    )
    layers = [layout.blob(LAYER, gzip.compress(each, mtime=0)) for each in tars]
    entry = layout.manifest(config, layers)
    entry["platform"] = {"os": "linux", "architecture": architecture}
    return entry


def make(root: Path) -> None:
    """Write the whole layout into a directory."""
    layout = Layout(root)
    children = [image(layout, architecture) for architecture in ("amd64", "arm64")]
    index = layout.document(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
    layout.list_as(index, "1.0")

    about = b"apiVersion: v2\nname: hello\nversion: 0.1.0\n"
    chart = gzip.compress(tar({"hello/Chart.yaml": about}), mtime=0)
    helm = "application/vnd.cncf.helm."
    config = layout.document(
        helm + "config.v1+json", {"apiVersion": "v2", "name": "hello", "version": "0.1.0"}
    )
    layout.list_as(
        layout.manifest(config, [layout.blob(helm + "chart.content.v1.tar+gzip", chart)]),
        "chart-0.1.0",
    )

    config = layout.document(
        "application/vnd.wasm.config.v0+json",
        {"created": CREATED, "architecture": "wasm", "os": "wasip1"},
    )
    layout.list_as(layout.manifest(config, [layout.blob("application/wasm", WASM)]), "module")

    empty = layout.blob(EMPTY, b"{}")
    notes = [
        layout.blob("text/plain", b"Buy milk.\n", "todo.txt"),
        layout.blob("text/markdown", b"# Ideas\n", "ideas.md"),
    ]
    layout.list_as(
        layout.manifest(empty, notes, artifactType="application/vnd.example.notes"), "notes"
    )

    signature = layout.blob(
        "application/vnd.example.signature", b"an example, not a real signature\n", "signature.txt"
    )
    layout.list_as(
        layout.manifest(
            empty, [signature], artifactType="application/vnd.example.signature", subject=index
        )
    )
    layout.finish()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: example.py DIRECTORY")
    make(Path(sys.argv[1]))
