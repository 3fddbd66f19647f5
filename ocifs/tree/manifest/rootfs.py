"""`rootfs/` of an image and `tree/` of a layer: which layers they are made of, and by which digests
they are checked.

Rules that hold here: nothing is asked until somebody looks into one; a config that names as many
diff IDs as there are layers names theirs, any other is no witness.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.errors import Malformed, Unsupported
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.artifact import is_rootfs_layer
from ocifs.oci.kinds.flavours import filesystem_image
from ocifs.oci.mediatype import essence
from ocifs.tree.base import SimpleNode
from ocifs.tree.manifest.image_context import image_context
from ocifs.tree.manifest.load import LoadedManifest, ManifestLocation
from ocifs.tree.manifest.times import config_members
from ocifs.tree.node import DIRECTORY, Attributes, Directory, DirectoryEntry, Node
from ocifs.tree.rootfs.root import LayerStack, open_layer_tree

_TARS = (
    ".tar",
    "+tar",
    "-tar",
    "/tar",
    "tar+gzip",
    "tar+zstd",
    "tar+bzip2",
    "tar+xz",
    "tar.gzip",
    "tar.gz",
    ".tgz",
)
_NOT_TARS = (("+encrypted", "encrypted"), ("nydus.blob", "a nydus blob"))


def is_tar_layer(media_type: str) -> bool:
    """Whether a layer of this type is a tar, as far as a type can say; its magic bytes decide when
    it is looked into.
    """
    plain = essence(media_type)
    if _other_format(plain):
        return False
    return is_rootfs_layer(plain) or plain.endswith(_TARS)


def _other_format(plain: str) -> str:
    """What a layer of an image is that is not a tar, by its type; empty if the type does not show
    it.
    """
    image = filesystem_image(plain)
    if image:
        return f"a {image} image" if image == "squashfs" else f"an {image} image"
    return next((what for word, what in _NOT_TARS if word in plain), "")


def diff_ids(config: bytes | None, count: int) -> tuple[Digest | None, ...]:
    """The digests of the plain tars of `count` layers, as an image's config names them; None for
    each that is not known.
    """
    rootfs = config_members(config).get("rootfs")
    named = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(named, list) or len(named) != count:
        return (None,) * count
    return tuple(_digest(value) for value in named)


def check_config(config: bytes | None, count: int) -> tuple[str, str]:
    """What keeps an image from being unpacked, by its config, and what a user should know; both may
    be empty (image-spec, config.md).
    """
    rootfs = config_members(config).get("rootfs") if config else None
    if not isinstance(rootfs, dict):
        return "", ""
    kind, named = rootfs.get("type", "layers"), rootfs.get("diff_ids")
    if kind != "layers":
        return f"its config has a rootfs.type that is not known: {str(kind)[:100]!r}", ""
    there = len(named) if isinstance(named, list) else 0
    if there == count:
        return "", ""
    return (
        "",
        f"the image has {count} layers and {there} diff IDs: what its layers unpack to is not checked against these",
    )


def _digest(value: object) -> Digest | None:
    try:
        return Digest.parse(value) if isinstance(value, str) else None
    except Malformed:
        return None


class UnreadableDirectory(SimpleNode):
    """A directory that is there and that nobody can look into; the error says why."""

    __slots__ = ("_why",)

    def __init__(self, why: str, key: Hashable, mtime_ns: int) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=mtime_ns, nlink=2))
        self._why = why

    async def lookup(self, name: bytes) -> Node:
        raise Unsupported(self._why)

    async def entries(self) -> Sequence[DirectoryEntry]:
        raise Unsupported(self._why)


def image_name(location: ManifestLocation, loaded: LoadedManifest) -> str:
    """What errors call a manifest."""
    return (
        f"{location.repository}@{loaded.manifest.digest}"
        if location.repository
        else str(loaded.manifest.digest)
    )


def open_rootfs(location: ManifestLocation, loaded: LoadedManifest, key: Hashable) -> Directory:
    """All layers of an image, merged."""
    layers = loaded.manifest.layers
    for number, layer in enumerate(layers):
        if not is_tar_layer(layer.media_type):
            what = _other_format(essence(layer.media_type)) or "of an unknown type"
            why = f"layer {number} of {loaded.manifest.digest} is {what}, not a tar: {layer.media_type}"
            return UnreadableDirectory(why, key, loaded.mtime_ns)
    error, warning = check_config(loaded.config, len(layers))
    name = image_name(location, loaded)
    if error:
        return UnreadableDirectory(f"{name} cannot be unpacked: {error}", key, loaded.mtime_ns)
    stack = LayerStack(
        location.repository,
        layers,
        diff_ids(loaded.config, len(layers)),
        mtime_ns=loaded.mtime_ns,
        image=name,
        warning=f"{name}: {warning}" if warning else "",
        report=location.context.report,
        tocs=image_context(location, loaded.manifest),
    )
    return open_layer_tree(location.context.layer_service, stack, location.context.view, key)
