"""The root of a tree of layers: a directory that exists before any layer has been read.

Until the layers are merged, its attributes are provisional: the mode that nearly every image gives
its root, and the manifest's time. They become known when the root is opened, listed or searched, or
when an earlier mount on the same cache has stored them (`restore_attributes`).

`_TreeRoot` has two states:

    unopened: `_inner` is None; attributes are provisional, or restored from the cache
       | first lookup, listing or opendir: merges the layers, fetching missing ones
       v
    open: `_inner` is the merged tree, which answers from now on

An error leaves it unopened, and the next caller tries again. Two tasks may open it at the same
time: `LayerService` indexes each layer once, and both get equal trees.

Rules that hold here:

- Nothing is fetched to list the parent directory, to stat the root, or to read an extended
  attribute of it: `ls -l` does all three.
- The time of change is the same before and after opening. GNU tar compares it to detect a directory
  that changed while it was read.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ocifs.content import Blob
from ocifs.errors import NotFound, Unsupported
from ocifs.layers.erofs.writer import ImageOptions
from ocifs.layers.images import ErofsImage
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.root_attributes import RootAttributes, name_of
from ocifs.layers.merge.tree import MergedEntry
from ocifs.layers.service import LayerService
from ocifs.layers.toc.protocol import ImageContext, TocRef
from ocifs.layers.view.xattrs import Xattrs, find_xattr, visible_xattrs
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.settings import ViewSettings
from ocifs.tree.base import FastNode, SimpleNode
from ocifs.tree.blob import (
    explain_foreign_urls,
    layer_missing_error,
    named_in_errors,
    with_known_size,
)
from ocifs.tree.node import FOREVER, Attributes, Directory, DirectoryEntry, Node
from ocifs.tree.rootfs.nodes import Subtree, TreeDirectory, open_subtree

# The mode of a root that has not been opened.
_PROVISIONAL_MODE = stat.S_IFDIR | 0o755
# The kernel must ask again until the layers are known.
_PROVISIONAL_LIFETIME = 0.0


@dataclass(frozen=True, slots=True)
class LayerStack:
    """Layers of one repository, lowest first, and how to show them.

    - `markers`: apply whiteouts instead of showing them as files.
    - `alone`: a single layer, not an image.
    - `within`: directory names above all of the content that the caller shows already.
    - `mtime_ns`: the time of the root until it is opened.
    - `tocs`: the image, if its layers may have tables of contents outside of them.
    - `image`: the name in errors. `warning`: passed to `report` when the tree is first opened.
    """

    repository: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest | None, ...]
    markers: bool = True
    alone: bool = False
    within: tuple[bytes, ...] = ()
    mtime_ns: int = 0
    tocs: ImageContext | None = None
    image: str = ""
    warning: str = ""
    report: Callable[[str], None] | None = None


def open_layer_tree(
    layer_service: LayerService, stack: LayerStack, view: ViewSettings, key: Hashable
) -> Directory:
    """The directory of a stack of layers. They are merged at the first lookup or listing."""
    return _TreeRoot(layer_service, stack, view, key)


class RootImage(NamedTuple):
    """The EROFS image of a root, the layers to which it refers, and the image's name in errors."""

    erofs: ErofsImage
    layer_service: LayerService
    layers: tuple[Layer, ...]
    image: str


async def open_root_image(directory: Directory, owner: tuple[int, int]) -> RootImage:
    """The EROFS image of a root filesystem. Layers that have not been read are read. The caller
    closes the image. `owner`: the user and group of all files, unless the view keeps theirs.

    Raises the errors of opening the directory, and Unsupported if it is not a tree of layers.
    """
    if isinstance(directory, _TreeRoot):
        return await directory.open_image(owner)
    # A directory that cannot be opened has the reason.
    await directory.entries()
    raise Unsupported("not a root filesystem")


class _TreeRoot(SimpleNode, FastNode):
    """The root of a tree.

    It supports all attributes, unlike its files: for an attribute that is only absent, `cp -a` asks
    for the mode again, and gets the final one.
    """

    __slots__ = (
        "_cached_root",
        "_inner",
        "_layer_service",
        "_stack",
        "_view",
        "attributes_known",
        "lifetime",
    )

    def __init__(
        self, layer_service: LayerService, stack: LayerStack, view: ViewSettings, key: Hashable
    ) -> None:
        mtime_ns = stack.mtime_ns
        super().__init__(
            key, Attributes(_PROVISIONAL_MODE, mtime_ns=mtime_ns, nlink=2, ctime_ns=mtime_ns)
        )
        self.lifetime = _PROVISIONAL_LIFETIME
        self.attributes_known = False
        self._layer_service = layer_service
        self._stack = stack
        self._view = view
        self._cached_root: RootAttributes | None = None
        self._inner: TreeDirectory | None = None

    async def lookup(self, name: bytes) -> Node:
        return await (await self._open()).lookup(name)

    async def entries(self) -> Sequence[DirectoryEntry]:
        return await (await self._open()).entries()

    def lookup_nowait(self, name: bytes) -> Node | None:
        return None if self._inner is None else self._inner.lookup_nowait(name)

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(name for name, _ in self._xattrs())

    async def attribute(self, name: bytes) -> bytes:
        return find_xattr(self._xattrs(), name)

    async def restore_attributes(self) -> None:
        if self._cached_root is None:
            root = await self._layer_service.root_attributes.find(self._root_key())
            if root is not None:
                self._apply_root(root)

    async def load_attributes(self) -> None:
        await self._open()

    def _xattrs(self) -> Xattrs:
        root = self._cached_root
        return () if root is None else visible_xattrs(root.entry)

    async def _open(self) -> TreeDirectory:
        if self._inner is None:
            try:
                await self._load_tree()
            except NotFound as error:
                raise layer_missing_error(error) from None
        assert self._inner is not None
        return self._inner

    async def _load_tree(self) -> None:
        stack, service = self._stack, self._layer_service
        with self._explaining():
            layers = await self._find_layers()
            tree = await service.tree(layers, markers=stack.markers, alone=stack.alone)
        top, path = _descend(tree.root, stack.within)
        root = RootAttributes(top.entry, top.links)
        # Later mounts then show these attributes without reading a layer.
        await service.root_attributes.save(self._root_key(), root)
        subtree = Subtree(top, path, stack.image)
        self._inner = open_subtree(self.key, service, layers, self._view, subtree)
        self._apply_root(root)
        self._report_warning()

    async def open_image(self, user: tuple[int, int]) -> RootImage:
        """The EROFS image of the tree."""
        stack, service, view = self._stack, self._layer_service, self._view
        owner = None if view.owner == "keep" else user
        options = ImageOptions(owner, view.links == "inside")
        try:
            with self._explaining():
                layers = await self._find_layers()
                erofs = await service.erofs_image(layers, options)
        except NotFound as error:
            raise layer_missing_error(error) from None
        self._report_warning()
        return RootImage(erofs, service, layers, stack.image)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Name the image and the URLs of foreign layers in errors."""
        urls = [url for descriptor in self._stack.layers for url in descriptor.urls]
        with named_in_errors(self._stack.image), explain_foreign_urls(urls):
            yield

    def _report_warning(self) -> None:
        if self._stack.warning and self._stack.report is not None:
            self._stack.report(self._stack.warning)

    async def _find_layers(self) -> tuple[Layer, ...]:
        located = await self._layer_service.locate_tocs(self._stack.tocs)
        blobs = [await with_known_size(self._layer_service.blobs, blob) for blob in self._blobs()]
        return self._layers(blobs, located)

    def _blobs(self) -> list[Blob]:
        return [Blob.of(self._stack.repository, descriptor) for descriptor in self._stack.layers]

    def _layers(self, blobs: Sequence[Blob], located: Mapping[Digest, TocRef]) -> tuple[Layer, ...]:
        stack = self._stack
        return tuple(
            self._layer_service.layer(
                blob,
                diff_id,
                descriptor.annotations,
                located.get(blob.digest),
                stack.tocs,
            )
            for blob, diff_id, descriptor in zip(blobs, stack.diff_ids, stack.layers, strict=True)
        )

    def _root_key(self) -> Digest:
        """The key of the cached attributes: a digest of all that is known before any request."""
        stack = self._stack
        opted_in = stack.tocs is not None and bool(stack.tocs.enabled)
        # Tables of contents are not located here, since that takes requests.
        layers = self._layers(self._blobs(), {})
        return name_of(layers, stack.markers, stack.alone, stack.within, opted_in)

    def _apply_root(self, root: RootAttributes) -> None:
        entry, ctime_ns = root.entry, self._stack.mtime_ns
        uid, gid = (entry.uid, entry.gid) if self._view.owner == "keep" else (None, None)
        mode = stat.S_IFDIR | entry.mode
        self.attributes = Attributes(
            mode, 0, entry.mtime_ns, root.names, uid, gid, ctime_ns=ctime_ns
        )
        # Digests identify the layers, so their attributes never change.
        self.lifetime = FOREVER
        self.attributes_known = True
        self._cached_root = root


def _descend(root: MergedEntry, within: tuple[bytes, ...]) -> tuple[MergedEntry, tuple[bytes, ...]]:
    """The directory at the path `within` if each of its names is the only one in its directory;
    else the root.
    """
    directory = root
    for name in within:
        children = directory.children
        inner = children.get(name) if children is not None and len(children) == 1 else None
        if inner is None or inner.children is None:
            return root, ()
        directory = inner
    return directory, within
