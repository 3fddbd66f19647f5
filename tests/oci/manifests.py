"""Manifests for the tests of kinds, and the form of a row: kind, type, deciding field, files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ocifs.oci import mediatype
from ocifs.oci.manifest import Manifest, digest_of_manifest, parse_manifest

A = "application/"
V = "application/vnd."
IMAGE = mediatype.OCI_CONFIG
DOCKER = mediatype.DOCKER_CONFIG
TAR = mediatype.OCI_LAYER_GZIP
DTAR = mediatype.DOCKER_LAYER_GZIP
EMPTY = mediatype.OCI_EMPTY
UNKNOWN = V + "unknown.config.v1+json"
BLANK = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
COMMON = "org.opencontainers.image."
OPA = V + "cncf.openpolicyagent."
COSIGN = V + "dev.cosign."


def d(media_type: str, size: int = 100, note: str = "", **more: object) -> dict[str, object]:
    """A descriptor. `note`: annotations as `key=value;key=value`, `t=` short for the title."""
    blank = media_type == EMPTY or size == 2
    notes = dict(pair.split("=", 1) for pair in note.split(";") if pair)
    if "t" in notes:
        notes[COMMON + "title"] = notes.pop("t")
    digest = (
        BLANK
        if blank
        else "sha256:" + hashlib.sha256(f"{media_type}{size}{note}".encode()).hexdigest()
    )
    return {
        "mediaType": media_type,
        "digest": digest,
        "size": 2 if blank else size,
        "annotations": notes,
    } | more


def m(
    config: str | dict[str, object] | None, *layers: str | dict[str, object], **more: object
) -> dict[str, object]:
    """An image manifest; a string stands for a descriptor of that type."""
    body: dict[str, object] = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST}
    if config is not None:
        body["config"] = d(config) if isinstance(config, str) else config
    body["layers"] = [d(layer) if isinstance(layer, str) else layer for layer in layers]
    return body | more


def x(*children: dict[str, object], **more: object) -> dict[str, object]:
    """An index."""
    return {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": list(children),
    } | more


def child(platform: str = "", artifact_type: str = "", note: str = "") -> dict[str, object]:
    more: dict[str, object] = {"artifactType": artifact_type} if artifact_type else {}
    if platform:
        more["platform"] = dict(
            zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
        )
    return d(mediatype.OCI_MANIFEST, 500, note, **more)


def parse(body: dict[str, object], served: str = "") -> Manifest:
    raw = json.dumps(body).encode()
    return parse_manifest(raw, digest_of_manifest(raw), served)


@dataclass(frozen=True)
class Row:
    name: str
    manifest: dict[str, object]
    kind: str
    artifact_type: str
    decided_by: str
    files: tuple[str, ...] = ()
    trap: str = ""
    tag: str = ""
    config: bytes | None = None
    flavours: tuple[str, ...] = ()


C, T, L0 = "config.mediaType", "artifactType", "layers[0].mediaType"
SUBJECT = d(mediatype.OCI_MANIFEST, 700)
