"""`layers/`: the layers of a manifest in the order in which they are applied, with their bytes and
facts.

Rules that hold here: a listing causes no request, except for the sizes of layers in Docker's schema
1, which records none.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ocifs.content import Blob
from ocifs.errors import LimitExceeded, NotFound
from ocifs.filenames import to_bytes
from ocifs.oci.kinds.artifact import has_rootfs
from ocifs.tree.base import SimpleNode, TextFile
from ocifs.tree.blob import BlobFile, with_known_size
from ocifs.tree.manifest.context import Context
from ocifs.tree.manifest.image_context import image_context
from ocifs.tree.manifest.load import LoadedManifest, ManifestLocation
from ocifs.tree.manifest.rootfs import diff_ids, image_name, is_tar_layer
from ocifs.tree.node import DIRECTORY, Attributes, DirectoryEntry, Node
from ocifs.tree.rootfs.root import LayerStack, open_layer_tree
from ocifs.tree.static import StaticDirectory, annotation_directory


class LayersDirectory(SimpleNode):
    """The directory of `0`, `1` and so on."""

    __slots__ = (
        "_diff_ids",
        "_image",
        "_is_image",
        "_layers",
        "_location",
        "_tocs",
    )

    def __init__(self, location: ManifestLocation, loaded: LoadedManifest, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=loaded.mtime_ns, nlink=2))
        self._location = location
        self._layers = loaded.manifest.layers
        self._diff_ids = diff_ids(loaded.config, len(self._layers))
        self._tocs = image_context(location, loaded.manifest)
        self._image = image_name(location, loaded)
        self._is_image = has_rootfs(loaded.manifest, loaded.classification)

    async def lookup(self, name: bytes) -> Node:
        layers = self._layers
        # Each layer has one name: `01` is not another name of `1`.
        if (
            not name.isdigit()
            or len(name) > 6
            or str(int(name)).encode() != name
            or int(name) >= len(layers)
        ):
            raise NotFound(f"not one of {len(layers)} layers: {name.decode(errors='replace')!r}")
        return self._layer(int(name))

    async def entries(self) -> Sequence[DirectoryEntry]:
        count, allowed = len(self._layers), self._location.context.limits.layers
        if count > allowed:
            raise LimitExceeded(f"the manifest has {count} layers, limits.layers allows {allowed}")
        return [DirectoryEntry(str(n).encode(), self._layer(n)) for n in range(count)]

    def _layer(self, number: int) -> Node:
        stack = LayerStack(
            self._location.repository,
            (self._layers[number],),
            (self._diff_ids[number],),
            # Names that begin with `.wh.` have a meaning in images only.
            markers=self._is_image,
            alone=True,
            mtime_ns=self.attributes.mtime_ns,
            image=self._image,
            tocs=self._tocs,
        )
        return LayerDirectory(self._location.context, stack, (self.key, number))


class LayerDirectory(SimpleNode):
    """One layer: `blob`, `digest`, `media-type`, `size`, `annotations/`, and `tree/` if it is a
    tar.
    """

    __slots__ = ("_context", "_descriptor", "_nodes", "_stack")

    def __init__(self, context: Context, stack: LayerStack, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=stack.mtime_ns, nlink=2))
        self._context = context
        self._stack = stack
        self._nodes: StaticDirectory | None = None
        [self._descriptor] = stack.layers

    async def lookup(self, name: bytes) -> Node:
        return await (await self._open()).lookup(name)

    async def entries(self) -> Sequence[DirectoryEntry]:
        return await (await self._open()).entries()

    async def _open(self) -> StaticDirectory:
        # Created once: `tree` stores the attributes of its root.
        if self._nodes is None:
            reader, mtime_ns = self._context.origin.blobs, self._stack.mtime_ns
            blob = await with_known_size(reader, Blob.of(self._stack.repository, self._descriptor))
            file = BlobFile(reader, blob, self._descriptor.media_type, mtime_ns)
            self._nodes = StaticDirectory(self.key, self._inner(file, blob.size), mtime_ns)
        return self._nodes

    def _inner(self, blob: BlobFile, size: int) -> Iterable[tuple[bytes, Node]]:
        mtime_ns = self._stack.mtime_ns
        yield b"blob", blob
        for name, value in (
            ("digest", str(self._descriptor.digest)),
            ("media-type", self._descriptor.media_type),
            ("size", str(size)),
        ):
            yield name.encode(), TextFile((self.key, name), to_bytes(f"{value}\n"), mtime_ns)
        yield (
            b"annotations",
            annotation_directory(
                (self.key, b"annotations"), self._descriptor.annotations, mtime_ns
            ),
        )
        if is_tar_layer(self._descriptor.media_type):
            yield (
                b"tree",
                open_layer_tree(
                    self._context.layer_service,
                    self._stack,
                    self._context.view,
                    (self.key, b"tree"),
                ),
            )
