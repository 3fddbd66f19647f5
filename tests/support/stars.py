"""Images with eStargz layers, written by stargz-snapshotter's package with chosen chunk sizes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ocifs.layers.toc.estargz import ANNOTATION, LAYER_DIGEST, SUFFIX
from ocifs.oci import mediatype
from tests.support.push import push_blob, push_manifest
from tests.support.tools import tool


def push_stars(
    url: str,
    repository: str,
    tars: Sequence[Path],
    place: Path,
    *,
    chunk: int = 0,
    least: int = 0,
    apart: bool = False,
) -> str:
    """Push an image of these layers as `stars`, and return the repository with its tag.

    - `chunk` and `least` are the options of the program `stars`.
    - With `apart`, the tables of contents are in a separate image, named as by ctr-remote and
      nerdctl.
    """
    program = tool("stars", place)
    layers, diff_ids, tables = [], [], []
    for tar in tars:
        blob, beside = place / "layer", place / "table"
        command = [
            program.path,
            tar.absolute(),
            blob,
            str(chunk),
            str(least),
            *([beside] if apart else []),
        ]
        made = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=600
        )  # gzip's best level is slow
        table, diff_id = made.stdout.split()
        diff_ids.append(diff_id)
        layers.append(
            {**_pushed(url, repository, blob.read_bytes()), "annotations": {ANNOTATION: table}}
        )
        if apart:
            of = {LAYER_DIGEST: layers[-1]["digest"]}
            tables.append({**_pushed(url, repository, beside.read_bytes()), "annotations": of})
        blob.unlink()
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    described = {
        **_pushed(url, repository, json.dumps(config).encode()),
        "mediaType": mediatype.OCI_CONFIG,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": described,
        "layers": layers,
    }
    push_manifest(url, repository, manifest, "stars")
    if apart:
        empty = {**_pushed(url, repository, b"{}"), "mediaType": mediatype.OCI_CONFIG}
        push_manifest(
            url, repository, {**manifest, "config": empty, "layers": tables}, f"stars{SUFFIX}"
        )
    return f"{repository}:stars"


def _pushed(url: str, repository: str, data: bytes) -> dict[str, object]:
    return {
        "mediaType": mediatype.OCI_LAYER_GZIP,
        "digest": push_blob(url, repository, data),
        "size": len(data),
    }
