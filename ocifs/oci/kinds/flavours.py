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

_WORDS = re.compile(r"[/.+-]")
_FILESYSTEMS = ("squashfs", "erofs", "ext3", "ext4")
_NYDUS = "containerd.io/snapshot/nydus-bootstrap"
ANNOTATED = (
    ("com.amazon.soci.index-digest", "soci-v2"),
    ("io.backstage.dynamic-packages", "backstage-plugin"),
    ("vnd.docker.sandbox.kit.descriptor", "sandbox-kit"),
    ("org.flatpak.ref", "flatpak"),
    ("cache.triton.image/variant", "triton-cache"),
    # Podman, CRI-O, and the tools of CRIU.
    ("io.podman.annotations.checkpoint.name", "checkpoint"),
    ("io.kubernetes.cri-o.annotations.checkpoint.name", "checkpoint"),
    ("org.criu.checkpoint.container.name", "checkpoint"),
)
# Prefixes of annotations of layers. Podman 4 and older write the third one.
_LAYER_ANNOTATED = (
    ("containerd.io/snapshot/stargz/toc.digest", "estargz"),
    ("io.github.containers.zstd-chunked.", "zstd:chunked"),
    ("io.containers.zstd-chunked.", "zstd:chunked"),
    ("containerd.io/snapshot/overlaybd/", "overlaybd"),
)
# Labels of an image's config. A pattern is `key` or `key=value`, and a key may end in `*`.
LABELS = (
    ("containers.bootc=1", "bootable"),
    ("ostree.bootable", "bootable"),
    ("ostree.commit", "bootable"),
    ("com.docker.desktop.extension.api.version", "docker-desktop-extension"),
    ("dev.carvel.imgpkg.bundle", "imgpkg-bundle"),
    ("io.modelcontextprotocol.server.name", "mcp-server"),
    ("io.docker.server.metadata", "mcp-server"),
    ("io.ebpf.*", "ebpf-bytecode"),
    ("operators.operatorframework.io.bundle.mediatype.v1", "olm-bundle"),
    ("operators.operatorframework.io.index.*", "olm-catalog"),
    ("io.buildpacks.buildpackage.metadata", "buildpackage"),
    ("io.buildpacks.builder.metadata", "buildpacks-builder"),
    ("org.flatpak.ref", "flatpak"),
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
    keys = {key for layer in layers for key in layer.annotations}
    flavours = [
        flavour
        for prefix, flavour in _LAYER_ANNOTATED
        if any(key.startswith(prefix) for key in keys)
    ]
    types = [mediatype.essence(layer.media_type) for layer in layers]
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
    flavours += [flavour for key, flavour in ANNOTATED if key in manifest.annotations]
    return tuple(dict.fromkeys(flavours))


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
    found = (flavour for pattern, flavour in LABELS if _has_label(labels, pattern))
    return tuple(dict.fromkeys(found))


def _has_label(labels: dict[str, object], pattern: str) -> bool:
    key, _, value = pattern.partition("=")
    if key.endswith("*"):
        return any(label.startswith(key[:-1]) for label in labels)
    return key in labels and value in ("", labels[key])
