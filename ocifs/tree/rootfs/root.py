"""The root of what layers hold: a directory that is there before anybody knows what is in it.

What stat shows of it is true as soon as somebody has opened it or looked into it, here or in an
earlier mount on the same cache; before that it is a guess: the mode that nearly every image gives
its root, and the manifest's time.

Rules that hold here: nothing is fetched to list or to stat the root, nor for an extended attribute
of it, which `ls -l` asks for; its time of change is the same before the first look and after it,
since by that GNU tar tells that a directory changed while it was read.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from ocifs.content import Blob
from ocifs.errors import NoAttribute, NotFound
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.root_attributes import RootAttributes, name_of
from ocifs.layers.merge.tree import MergedEntry
from ocifs.layers.service import LayerService
from ocifs.layers.toc.protocol import ImageContext, TocRef
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.settings import ViewSettings
from ocifs.tree.blob import (
    explain_foreign_urls,
    layer_missing_error,
    named_in_errors,
    with_known_size,
)
from ocifs.tree.node import FOREVER, Attributes, Directory, DirectoryEntry, Node, SimpleNode
from ocifs.tree.rootfs.nodes import Subtree, open_subtree
from ocifs.tree.rootfs.xattrs import visible_xattrs

_GUESSED = stat.S_IFDIR | 0o755
# The attributes of a root are known when its layers are: until then the kernel asks each time.
_GUESSED_LIFETIME = 0.0


@dataclass(frozen=True, slots=True)
class LayerStack:
    """Layers of one repository, lowest first, as they are to be shown.

    `alone`: one layer by itself; `markers`: whiteouts are hidden.

    `tocs`: the image, for tables of contents outside its layers. `within`: names above everything in
    the layers that are shown already, by whoever has this tree. `mtime_ns`: the root's, until it is looked into. `image`: what errors
    call the whole; `warning`: what is to be reported, by `report`, when the tree is first looked
    into.
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
    """The directory of what layers hold, merged when it is first looked into."""
    return _TreeRoot(layer_service, stack, view, key)


class _TreeRoot(SimpleNode):
    """The root of a tree. `settled`: its attributes are known."""

    __slots__ = (
        "_cached_root",
        "_inner",
        "_stack",
        "_view",
        "_workshop",
        "attributes_known",
        "lifetime",
    )

    def __init__(
        self, layer_service: LayerService, stack: LayerStack, view: ViewSettings, key: Hashable
    ) -> None:
        super().__init__(
            key, Attributes(_GUESSED, mtime_ns=stack.mtime_ns, nlink=2, ctime_ns=stack.mtime_ns)
        )
        self.lifetime = _GUESSED_LIFETIME
        self.attributes_known = False
        self._workshop = layer_service
        self._stack = stack
        self._view = view
        self._cached_root: RootAttributes | None = None
        self._inner: Directory | None = None

    async def lookup(self, name: bytes) -> Node:
        return await (await self._open()).lookup(name)

    async def entries(self) -> Sequence[DirectoryEntry]:
        return await (await self._open()).entries()

    def lookup_nowait(self, name: bytes) -> Node | None:
        return None if self._inner is None else self._inner.lookup_nowait(name)

    def attribute_names(self) -> Sequence[bytes]:
        return (
            ()
            if self._cached_root is None
            else tuple(name for name, _ in visible_xattrs(self._cached_root.entry.xattrs))
        )

    async def attribute(self, name: bytes) -> bytes:
        for known, value in (
            () if self._cached_root is None else visible_xattrs(self._cached_root.entry.xattrs)
        ):
            if known == name:
                return value
        raise NoAttribute(f"no extended attribute {name!r} here")

    async def restore_attributes(self) -> None:
        if self._cached_root is None:
            root = await self._workshop.root_attributes.find(self._root_key())
            if root is not None:
                self._apply_root(root)

    async def load_attributes(self) -> None:
        await self._open()

    async def _open(self) -> Directory:
        if self._inner is None:
            try:
                await self._load_tree()
            except NotFound as error:
                raise layer_missing_error(error) from None
        assert self._inner is not None
        return self._inner

    async def _load_tree(self) -> None:
        stack, layer_service = self._stack, self._workshop
        located = await layer_service.locate_tocs(stack.tocs)
        with (
            named_in_errors(stack.image),
            explain_foreign_urls([url for descriptor in stack.layers for url in descriptor.urls]),
        ):
            layers = self._layers(
                [await with_known_size(layer_service.blobs, blob) for blob in self._blobs()],
                located,
            )
            tree = await layer_service.tree(layers, markers=stack.markers, alone=stack.alone)
        top, path = _descend(tree.root, stack.within)
        root = RootAttributes(top.entry, top.links)
        await layer_service.root_attributes.save(self._root_key(), root)
        self._inner = open_subtree(
            self.key, layer_service, layers, self._view, Subtree(top, path, stack.image)
        )
        self._apply_root(root)
        if stack.warning and stack.report is not None:
            stack.report(stack.warning)

    def _blobs(self) -> list[Blob]:
        return [Blob.of(self._stack.repository, descriptor) for descriptor in self._stack.layers]

    def _layers(self, blobs: Sequence[Blob], located: Mapping[Digest, TocRef]) -> tuple[Layer, ...]:
        described = zip(blobs, self._stack.diff_ids, self._stack.layers, strict=True)
        return tuple(
            self._workshop.layer(
                blob,
                diff_id,
                descriptor.annotations,
                located.get(blob.digest),
                self._stack.tocs,
            )
            for blob, diff_id, descriptor in described
        )

    def _root_key(self) -> Digest:
        """What the root is kept by: all that is known of the tree without asking anybody."""
        stack = self._stack
        opted_in = stack.tocs is not None and bool(stack.tocs.enabled)
        return name_of(
            self._layers(self._blobs(), {}), stack.markers, stack.alone, stack.within, opted_in
        )

    def _apply_root(self, root: RootAttributes) -> None:
        member = root.entry
        uid, gid = (member.uid, member.gid) if self._view.owner == "keep" else (None, None)
        mode, when = stat.S_IFDIR | member.mode, self._stack.mtime_ns
        self.attributes = Attributes(mode, 0, member.mtime_ns, root.names, uid, gid, ctime_ns=when)
        self.lifetime = FOREVER
        self.attributes_known = True
        self._cached_root = root


def _descend(root: MergedEntry, within: tuple[bytes, ...]) -> tuple[MergedEntry, tuple[bytes, ...]]:
    """The directory at the names `within`, where each of them is all that the one before has; else
    the root.
    """
    here = root
    for name in within:
        inner = (
            here.children.get(name)
            if here.children is not None and len(here.children) == 1
            else None
        )
        if inner is None or inner.children is None:
            return root, ()
        here = inner
    return here, within
