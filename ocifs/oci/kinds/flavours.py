"""Flavours of container images, from the types of their layers and the labels of their config.

Flavours are displayed beside the kind `image`. They do not change the kind.

Rules that hold here: pure; only the manifest and the config blob are used, and no layer is read.
"""

from __future__ import annotations

import re

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.jsontext import load_json
from ocifs.oci.manifest import Manifest

# Podman 4 and older write the latter.
_CHUNKED = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
_WORDS = re.compile(r"[/.+-]")
_FILESYSTEMS = ("squashfs", "erofs", "ext3", "ext4")
_NYDUS = "containerd.io/snapshot/nydus-bootstrap"
_ANNOTATED = (
    ("com.amazon.soci.index-digest", "soci-v2"),
    ("io.backstage.dynamic-packages", "backstage-plugin"),
)


def filesystem_image(media_type: str) -> str:
    """The file system of a layer that is an image of one; "" for others.

    stacker, Singularity and containerd write such layers.
    """
    words = _WORDS.split(mediatype.essence(media_type))
    return next((name for name in _FILESYSTEMS if name in words), "")


def manifest_flavours(manifest: Manifest) -> tuple[str, ...]:
    """The flavours of an image, from the types and annotations of its manifest."""
    layers = manifest.layers
    flavours = []
    types = [mediatype.essence(layer.media_type) for layer in layers]
    if any("containerd.io/snapshot/stargz/toc.digest" in layer.annotations for layer in layers):
        flavours.append("estargz")
    if any(key.startswith(_CHUNKED) for layer in layers for key in layer.annotations):
        flavours.append("zstd:chunked")
    if any("+encrypted" in text for text in types):
        flavours.append("encrypted")
    if any(
        layer.urls or ".foreign." in text or ".nondistributable." in text
        for layer, text in zip(layers, types, strict=True)
    ):
        flavours.append("foreign-layers")
    flavours += [
        name for name in _FILESYSTEMS if any(filesystem_image(text) == name for text in types)
    ]
    if any(
        ".nydus." in text or _NYDUS in layer.annotations
        for layer, text in zip(layers, types, strict=True)
    ):
        flavours.append("nydus")
    flavours += [flavour for key, flavour in _ANNOTATED if key in manifest.annotations]
    return tuple(flavours)


def config_flavours(config: bytes) -> tuple[str, ...]:
    """The flavours in the labels of an image's config; none if the config is invalid."""
    try:
        members = load_json(config, "the config")
    except Malformed:
        return ()
    inner = members.get("config") if isinstance(members, dict) else None
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    if not isinstance(labels, dict):
        return ()
    flavours = []
    if labels.get("containers.bootc") == "1" or any(
        key in labels for key in ("ostree.bootable", "ostree.commit")
    ):
        flavours.append("bootable")
    if "com.docker.desktop.extension.api.version" in labels:
        flavours.append("docker-desktop-extension")
    if "dev.carvel.imgpkg.bundle" in labels:
        flavours.append("imgpkg-bundle")
    return tuple(flavours)
