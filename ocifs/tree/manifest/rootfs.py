"""`rootfs/` of an image, and the rules that `layers/N/tree` shares with it: which layers are tars,
and the diff IDs that verify them.

Rules that hold here:

- Nothing is fetched before the directory is opened.
- The diff IDs of a config are used only if there are as many as layers.
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
    """Whether the media type is that of a tar. The magic bytes decide when the layer is opened."""
    media_type = essence(media_type)
    if _other_format(media_type):
        return False
    return is_rootfs_layer(media_type) or media_type.endswith(_TARS)


def _other_format(media_type: str) -> str:
    """The format of a layer that is not a tar, with an article; empty if the type does not show
    it.
    """
    image = filesystem_image(media_type)
    if image:
        return f"a {image} image" if image == "squashfs" else f"an {image} image"
    return next((name for word, name in _NOT_TARS if word in media_type), "")


def diff_ids(config: bytes | None, count: int) -> tuple[Digest | None, ...]:
    """The digests of the uncompressed layers from an image's config. None for unknown ones."""
    rootfs = config_members(config).get("rootfs")
    values = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    # With another number, a diff ID may belong to another layer, and make that one look corrupt.
    if not isinstance(values, list) or len(values) != count:
        return (None,) * count
    return tuple(_digest(value) for value in values)


def check_config(config: bytes | None, count: int) -> tuple[str, str]:
    """The reason that an image cannot be unpacked, and a warning; both may be empty (image-spec,
    config.md).
    """
    rootfs = config_members(config).get("rootfs") if config else None
    if not isinstance(rootfs, dict):
        return "", ""
    kind, values = rootfs.get("type", "layers"), rootfs.get("diff_ids")
    if kind != "layers":
        # The publisher's value may be of any length.
        return f"its config has an unknown rootfs.type: {str(kind)[:100]!r}", ""
    diff_id_count = len(values) if isinstance(values, list) else 0
    if diff_id_count == count:
        return "", ""
    return (
        "",
        f"the image has {count} layers and {diff_id_count} diff IDs: "
        "the layers are not verified by diff ID",
    )


def _digest(value: object) -> Digest | None:
    try:
        return Digest.parse(value) if isinstance(value, str) else None
    except Malformed:
        return None


class UnreadableDirectory(SimpleNode):
    """A directory that exists and cannot be opened. The error has the reason."""

    __slots__ = ("_reason",)

    def __init__(self, reason: str, key: Hashable, mtime_ns: int) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=mtime_ns, nlink=2))
        self._reason = reason

    async def lookup(self, name: bytes) -> Node:
        raise Unsupported(self._reason)

    async def entries(self) -> Sequence[DirectoryEntry]:
        raise Unsupported(self._reason)


def image_name(location: ManifestLocation, loaded: LoadedManifest) -> str:
    """The name of an image in errors."""
    digest = str(loaded.manifest.digest)
    return f"{location.repository}@{digest}" if location.repository else digest


def open_rootfs(location: ManifestLocation, loaded: LoadedManifest, key: Hashable) -> Directory:
    """All layers of an image, merged."""
    layers = loaded.manifest.layers
    for number, layer in enumerate(layers):
        if not is_tar_layer(layer.media_type):
            # Without this layer the merged tree would be a wrong one, so no layer is shown.
            other = _other_format(essence(layer.media_type)) or "of an unknown type"
            digest = loaded.manifest.digest
            reason = f"layer {number} of {digest} is {other}, not a tar: {layer.media_type}"
            return UnreadableDirectory(reason, key, loaded.mtime_ns)
    error, warning = check_config(loaded.config, len(layers))
    name = image_name(location, loaded)
    if error:
        return UnreadableDirectory(f"cannot unpack {name}: {error}", key, loaded.mtime_ns)
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
