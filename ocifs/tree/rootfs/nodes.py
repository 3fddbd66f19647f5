"""The contents of layers as nodes: directories, files, links and devices as in the archives.

`root.py` opens a tree here once `LayerService` has merged its layers. From then on no name needs
the registry: every lookup and listing is answered from the merged tree, and only the content of
files is fetched. So these nodes have a fast path. All methods run in the event loop.

A tree can have millions of files, and a listing creates a node for each. A node therefore holds two
references and a number, and computes the rest when it is needed. Files and links with a single name
belong to the inode range of their layer (`_LayerInodes`): the kernel's table counts their lookups
and does not store the nodes.

Rules that hold here:

- An entry of a layer is one inode in all trees that show it with the same number of names. A
  directory is one inode for each path.
- A link that would leave the tree is shown with a target inside it, unless `links` is `raw`.
- The owner is the mounting user, unless `owner` is `keep`.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ocifs.errors import NotFound
from ocifs.filenames import mangle
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.tree import DIRECTORY as DIRECTORY_CODE
from ocifs.layers.merge.tree import (
    POSITION,
    UPWARD,
    MergedEntry,
    MergedTree,
    code_of,
    layer_of,
    position_of,
)
from ocifs.layers.service import LayerService
from ocifs.layers.view.links import rebase_target
from ocifs.layers.view.modes import mode_of
from ocifs.layers.view.xattrs import find_xattr, visible_xattrs
from ocifs.settings import ViewSettings
from ocifs.tree.base import FastNode
from ocifs.tree.blob import layer_missing_error, named_in_errors
from ocifs.tree.node import (
    Attributes,
    DirectoryEntry,
    InodeSlot,
    Node,
    make_attributes,
    make_entry,
    make_slot,
)

_NAME_MAX = 255
# An attribute of an Enum takes longer than a comparison.
_FILE, _SYMLINK = EntryKind.FILE, EntryKind.SYMLINK


@dataclass(frozen=True, slots=True)
class _TreeContext:
    """Shared by the nodes of one tree: `key` is that of its root."""

    key: Hashable
    layer_service: LayerService
    tree: MergedTree
    layers: tuple[Layer, ...]
    links_inside: bool
    owners_kept: bool
    image: str
    inode_ranges: tuple[_LayerInodes, ...] = field(init=False)

    def __post_init__(self) -> None:
        keys = [layer.key for layer in self.layers]
        inode_ranges = tuple(
            _LayerInodes(self, number, keys[:number].count(key)) for number, key in enumerate(keys)
        )
        object.__setattr__(self, "inode_ranges", inode_ranges)


class Subtree(NamedTuple):
    """A directory of a merged tree, its path from the root, and the image's name in errors."""

    top: MergedEntry
    path: tuple[bytes, ...] = ()
    image: str = ""


def open_subtree(
    key: Hashable,
    layer_service: LayerService,
    layers: tuple[Layer, ...],
    view: ViewSettings,
    subtree: Subtree,
) -> TreeDirectory:
    """A directory of a merged tree. `key` is that of the tree's root."""
    top, path, image = subtree
    context = _TreeContext(
        key, layer_service, top.tree, layers, view.links == "inside", view.owner == "keep", image
    )
    return TreeDirectory(context, top.code, path)


class _TreeNode(FastNode):
    """A node of an entry of a layer."""

    __slots__ = ("_code", "_context", "_entry")

    def __init__(self, context: _TreeContext, code: int, entry: LayerEntry) -> None:
        self._context = context
        self._code = code
        self._entry = entry

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._entry, self._entry.size)

    @property
    def unsupported_attributes(self) -> frozenset[bytes]:
        return self._context.tree.unsupported_xattrs

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(name for name, _ in visible_xattrs(self._entry))

    async def attribute(self, name: bytes) -> bytes:
        return find_xattr(visible_xattrs(self._entry), name)


class _TreeLeaf(_TreeNode):
    """A node that is not a directory. It has a slot if it has one name and an unchanged target."""

    __slots__ = ("slot",)

    def __init__(
        self, context: _TreeContext, code: int, entry: LayerEntry, slot: InodeSlot | None
    ) -> None:
        self._context = context
        self._code = code
        self._entry = entry
        self.slot = slot

    @property
    def key(self) -> Hashable:
        layer, place = position_of(self._code)
        names = self._context.tree.names_of(self._code)
        key = (self._context.inode_ranges[layer].key, place, names)
        # The target of an upward link depends on its directory, which is part of the code.
        return (*key, self._code) if self._code & UPWARD else key

    @property
    def _layer(self) -> Layer:
        return self._context.layers[layer_of(self._code)]


class _TreeFile(_TreeLeaf):
    """A file, or a device or FIFO, which is never read."""

    __slots__ = ()

    @property
    def attributes(self) -> Attributes:
        entry, context = self._entry, self._context
        # Nearly all files take this path, which needs half of the time.
        if entry.kind is _FILE and self.slot is not None and not context.owners_kept:
            mode = stat.S_IFREG | entry.mode
            return make_attributes(
                (mode, entry.size, entry.mtime_ns, 1, None, None, entry.rdev, None)
            )
        return _attributes(context, self._code, entry, entry.size)

    def on_open(self) -> None:
        self._context.layer_service.acquire(self._layer)

    def on_close(self) -> None:
        self._context.layer_service.release(self._layer)

    async def read(self, offset: int, size: int) -> bytes:
        entry = self._entry
        if not entry.size:
            return b""
        layer = self._layer
        try:
            with named_in_errors(self._context.image, layer.blob.digest):
                return await self._context.layer_service.read(layer, entry, offset, size)
        except NotFound as error:
            raise layer_missing_error(error) from None
        raise AssertionError("named_in_errors has suppressed an error")

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        entry = self._entry
        if not entry.size:
            return b""
        return self._context.layer_service.read_nowait(self._layer, entry, offset, size)

    def readahead_nowait(self, limit: int) -> bytes | None:
        entry = self._entry
        if not 0 < entry.size <= limit:
            return None
        return self._context.layer_service.readahead_nowait(self._layer, entry)


class _TreeSymlink(_TreeLeaf):
    """A symbolic link with the target that its layer records."""

    __slots__ = ()

    @property
    def target(self) -> bytes:
        return self._entry.link

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._entry, len(self._entry.link))


class _RebasedSymlink(_TreeNode):
    """A symbolic link with another target than its layer records, which depends on its path."""

    __slots__ = ("_path", "target")

    def __init__(
        self,
        context: _TreeContext,
        code: int,
        entry: LayerEntry,
        path: tuple[bytes, ...],
        target: bytes,
    ) -> None:
        super().__init__(context, code, entry)
        self._path = path
        self.target = target

    @property
    def key(self) -> Hashable:
        return self._context.key, b"/".join(self._path), self.target

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._entry, len(self.target))


class TreeDirectory(_TreeNode):
    """A directory. `path` has the names from the tree's root to it."""

    __slots__ = ("_mangled", "_path")

    def __init__(self, context: _TreeContext, code: int, path: tuple[bytes, ...]) -> None:
        super().__init__(context, code, context.tree.entry(code))
        self._path = path
        self._mangled: dict[bytes, bytes] | None = None

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._entry, 0)

    @property
    def key(self) -> Hashable:
        return self._context.key, b"/".join(self._path)

    @property
    def _codes(self) -> Mapping[bytes, int]:
        return self._context.tree.listing(self._code ^ DIRECTORY_CODE)

    async def lookup(self, name: bytes) -> Node:
        return self.lookup_nowait(name)

    def lookup_nowait(self, name: bytes) -> Node:
        codes = self._codes
        code = codes.get(name) if len(name) <= _NAME_MAX else None
        if code is not None:
            return self._node(name, code)
        if self._mangled is None:
            self._mangled = {mangle(real): real for real in codes if len(real) > _NAME_MAX}
        real = self._mangled.get(name)
        if real is None:
            raise NotFound(f"no {name.decode(errors='replace')!r} in this directory of the layer")
        return self._node(real, codes[real])

    async def entries(self) -> Sequence[DirectoryEntry]:
        return self.entries_nowait()

    def entries_nowait(self) -> Sequence[DirectoryEntry]:
        context, listed = self._context, list[DirectoryEntry]()
        inode_ranges, hard_links = context.inode_ranges, context.tree.links
        for real, code in self._codes.items():
            node: Node | None = None
            # Inlined for ordinary files: a listing creates thousands of them.
            if not code & (DIRECTORY_CODE | UPWARD) and code not in hard_links:
                inode_range, position = inode_ranges[layer_of(code)], code & POSITION
                entry = inode_range.entries[position]
                if entry.kind is not _SYMLINK:
                    node = _TreeFile(context, code, entry, make_slot((inode_range, position)))
            if node is None:
                node = self._node(real, code)
            # The kernel rejects a whole listing for one name that is too long.
            name = real if len(real) <= _NAME_MAX else mangle(real)
            listed.append(make_entry((name, node)))
        return listed

    def _node(self, real: bytes, code: int) -> Node:
        context = self._context
        if code & DIRECTORY_CODE:
            return TreeDirectory(context, code, (*self._path, real))
        entry = context.tree.entry(code)
        if entry.kind is _SYMLINK and context.links_inside:
            target = rebase_target(context.tree.root, self._path, entry.link)
            if target != entry.link:
                return _RebasedSymlink(context, code, entry, (*self._path, real), target)
        layer, position = position_of(code)
        has_slot = code not in context.tree.links and not code & UPWARD
        slot = InodeSlot(context.inode_ranges[layer], position) if has_slot else None
        return (_TreeSymlink if entry.kind is _SYMLINK else _TreeFile)(context, code, entry, slot)


class _LayerInodes:
    """The inode range of a layer: its entries that have a slot.

    `copy` is the number of lower layers with the same content. The entries of each copy are files
    of their own.
    """

    __slots__ = ("_context", "_first", "entries", "key")

    def __init__(self, context: _TreeContext, layer: int, copy: int) -> None:
        self._context = context
        self._first = code_of(layer, 0)
        self.entries = context.tree.layers[layer].entries
        scope: tuple[object, ...] = context.layer_service.blobs.key_scope
        self.key = ("layer", str(context.layers[layer].key), *scope, *([copy] if copy else ()))

    @property
    def size(self) -> int:
        return len(self.entries)

    def node(self, position: int) -> Node:
        entry = self.entries[position]
        kind = _TreeSymlink if entry.kind is _SYMLINK else _TreeFile
        return kind(self._context, self._first | position, entry, make_slot((self, position)))


def _attributes(context: _TreeContext, code: int, entry: LayerEntry, size: int) -> Attributes:
    uid, gid = (entry.uid, entry.gid) if context.owners_kept else (None, None)
    names = context.tree.names_of(code) or 1
    return make_attributes(
        (mode_of(entry), size, entry.mtime_ns, names, uid, gid, entry.rdev, None)
    )
