"""The inside of layers as nodes: directories, files, links and devices as the tars have them.

Rules that hold here: nothing is asked until a name is looked up or listed; a file has one inode
wherever the layer's entry appears with as many names, a directory one a place; a link that would
lead outside is shown so that it stays inside, unless links are raw; owners are the mounting user
unless they are kept.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ocifs.errors import NoAttribute, NotFound
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.tree import DIRECTORY as DIRECTORY_CODE
from ocifs.layers.merge.tree import (
    PLACE,
    UPWARD,
    MergedEntry,
    MergedTree,
    code_of,
    layer_of,
    place_of,
)
from ocifs.layers.service import LayerService
from ocifs.settings import ViewSettings
from ocifs.tree.blob import layer_missing_error, named_in_errors, scope_of
from ocifs.tree.names import mangle
from ocifs.tree.node import (
    SYMLINK,
    Attributes,
    Directory,
    DirectoryEntry,
    InodeSlot,
    Node,
    NodeBase,
    make_attributes,
    make_entry,
    make_slot,
)
from ocifs.tree.rootfs.links import rebase_target
from ocifs.tree.rootfs.xattrs import visible_xattrs

_NAME_MAX = 255
_TYPES = {
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_FILE, _SYMLINK = (
    EntryKind.FILE,
    EntryKind.SYMLINK,
)  # to look into an Enum takes longer than to compare


@dataclass(frozen=True, slots=True)
class _TreeContext:
    """What the nodes of one tree share.

    `key`: that of its root; `inode_ranges`: the entries of each layer.
    """

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
    """A directory of a tree, the names from the tree's root to it, and what errors call the whole."""

    top: MergedEntry
    path: tuple[bytes, ...] = ()
    image: str = ""


def open_subtree(
    key: Hashable,
    layer_service: LayerService,
    layers: tuple[Layer, ...],
    view: ViewSettings,
    place: Subtree,
) -> Directory:
    """A directory of a tree and all below it. `key`: the tree's."""
    top, path, image = place
    context = _TreeContext(
        key, layer_service, top.tree, layers, view.links == "inside", view.owner == "keep", image
    )
    return _TreeDirectory(context, top.code, path)


class _TreeNode(NodeBase):
    """A node made from an entry of a layer.

    What is asked of it seldom is made when it is asked: a listing makes thousands of them.
    """

    __slots__ = ("_code", "_context", "_member")
    changes = False

    def __init__(self, context: _TreeContext, code: int, member: LayerEntry) -> None:
        self._context = context
        self._code = code
        self._member = member

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._member, self._member.size)

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(name for name, _ in visible_xattrs(self._member.xattrs))

    async def attribute(self, name: bytes) -> bytes:
        for known, value in visible_xattrs(self._member.xattrs):
            if known == name:
                return value
        raise NoAttribute(f"no extended attribute {name!r} here")


class _TreeLeaf(_TreeNode):
    """What is no directory. `spot`: of what has one name and is shown as it is."""

    __slots__ = ("slot",)

    def __init__(
        self, context: _TreeContext, code: int, member: LayerEntry, slot: InodeSlot | None
    ) -> None:
        self._context = context
        self._code = code
        self._member = member
        self.slot = slot

    @property
    def key(self) -> Hashable:
        layer, place = place_of(self._code)
        key = (
            self._context.inode_ranges[layer].key,
            place,
            self._context.tree.names_of(self._code),
        )
        return (
            (*key, self._code) if self._code & UPWARD else key
        )  # whose target depends on the directory

    @property
    def _layer(self) -> Layer:
        return self._context.layers[place_of(self._code)[0]]


class _TreeFile(_TreeLeaf):
    """A file, or a device or FIFO, which nobody reads."""

    __slots__ = ()

    @property
    def attributes(self) -> Attributes:
        member, context = self._member, self._context
        if (
            member.kind is _FILE and self.slot is not None and not context.owners_kept
        ):  # as nearly all, and in half of the time
            return make_attributes(
                (
                    stat.S_IFREG | member.mode,
                    member.size,
                    member.mtime_ns,
                    1,
                    None,
                    None,
                    member.rdev,
                    None,
                )
            )
        return _attributes(context, self._code, member, member.size)

    def on_open(self) -> None:
        context = self._context
        context.layer_service.acquire(context.layers[layer_of(self._code)])

    def on_close(self) -> None:
        context = self._context
        context.layer_service.release(context.layers[layer_of(self._code)])

    async def read(self, offset: int, size: int) -> bytes:
        member = self._member
        if not member.size:
            return b""
        layer = self._layer
        try:
            with named_in_errors(self._context.image, layer.blob.digest):
                return await self._context.layer_service.read(layer, member, offset, size)
        except NotFound as error:
            raise layer_missing_error(error) from None
        raise AssertionError("named_in_errors raises what it catches")

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        member = self._member
        if not member.size:
            return b""
        return self._context.layer_service.read_nowait(self._layer, member, offset, size)

    def readahead_nowait(self, most: int) -> bytes | None:
        member = self._member
        if not 0 < member.size <= most:
            return None
        return self._context.layer_service.readahead_nowait(self._layer, member)


class _TreeSymlink(_TreeLeaf):
    """A symbolic link that is shown as its layer has it, wherever it stands."""

    __slots__ = ()

    @property
    def target(self) -> bytes:
        return self._member.link

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._member, len(self._member.link))


class _RebasedSymlink(_TreeNode):
    """A symbolic link that is shown otherwise than its layer has it, by where it stands."""

    __slots__ = ("_path", "target")

    def __init__(
        self,
        context: _TreeContext,
        code: int,
        member: LayerEntry,
        path: tuple[bytes, ...],
        target: bytes,
    ) -> None:
        super().__init__(context, code, member)
        self._path = path
        self.target = target

    @property
    def key(self) -> Hashable:
        return self._context.key, b"/".join(self._path)

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._member, len(self.target))


class _TreeDirectory(_TreeNode):
    """A directory. `path`: the names from the tree's root to it."""

    __slots__ = ("_mangled", "_path")

    def __init__(self, context: _TreeContext, code: int, path: tuple[bytes, ...]) -> None:
        super().__init__(context, code, context.tree.entry(code))
        self._path = path
        self._mangled: dict[bytes, bytes] | None = None

    @property
    def attributes(self) -> Attributes:
        return _attributes(self._context, self._code, self._member, 0)

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
            self._mangled = {_visible_name(real): real for real in codes if len(real) > _NAME_MAX}
        real = self._mangled.get(name)
        if real is None:
            raise NotFound(f"no {name.decode(errors='replace')!r} in this directory of the layer")
        return self._node(real, codes[real])

    async def entries(self) -> Sequence[DirectoryEntry]:
        return self.entries_nowait()

    def entries_nowait(self) -> Sequence[DirectoryEntry]:
        context, found = self._context, list[DirectoryEntry]()
        inode_ranges, links = context.inode_ranges, context.tree.links
        for real, code in self._codes.items():
            node: Node | None = None
            # A file that nothing is special about, as most are, is made here: a listing makes
            # thousands of them.
            if not code & (DIRECTORY_CODE | UPWARD) and code not in links:
                inode_range, place = inode_ranges[layer_of(code)], code & PLACE
                member = inode_range.members[place]
                if member.kind is not _SYMLINK:
                    node = _TreeFile(context, code, member, make_slot((inode_range, place)))
            if node is None:
                node = self._node(real, code)
            found.append(make_entry((real if len(real) <= _NAME_MAX else mangle(real), node)))
        return found

    def _node(self, real: bytes, code: int) -> Node:
        context = self._context
        if code & DIRECTORY_CODE:
            return _TreeDirectory(context, code, (*self._path, real))
        member = context.tree.entry(code)
        if member.kind is _SYMLINK and context.links_inside:
            target = rebase_target(context.tree.root, self._path, member.link)
            if target != member.link:
                return _RebasedSymlink(context, code, member, (*self._path, real), target)
        return _leaf(context, code, member)


def _leaf(context: _TreeContext, code: int, member: LayerEntry) -> _TreeFile | _TreeSymlink:
    """The node of what is no directory and is shown as its layer has it, wherever it stands."""
    layer, place = place_of(code)
    alone = code not in context.tree.links and not code & UPWARD
    slot = InodeSlot(context.inode_ranges[layer], place) if alone else None
    return (_TreeSymlink if member.kind is _SYMLINK else _TreeFile)(context, code, member, slot)


class _LayerInodes:
    """The entries of a layer that have one name and are shown as they are.

    `copy`: how many lower layers of the tree are the same one. Entries of each are files of their
    own.
    """

    __slots__ = ("_context", "_first", "key", "members")

    def __init__(self, context: _TreeContext, layer: int, copy: int) -> None:
        self._context = context
        self._first = code_of(layer, 0)
        self.members = context.tree.layers[layer].entries
        scope: tuple[object, ...] = scope_of(context.layer_service.blobs)
        self.key = ("layer", str(context.layers[layer].key), *scope, *([copy] if copy else ()))

    @property
    def size(self) -> int:
        return len(self.members)

    def node(self, place: int) -> Node:
        member = self.members[place]
        kind = _TreeSymlink if member.kind is _SYMLINK else _TreeFile
        return kind(self._context, self._first | place, member, make_slot((self, place)))


def _attributes(context: _TreeContext, code: int, member: LayerEntry, size: int) -> Attributes:
    kind = member.kind
    if kind is _FILE:
        mode = stat.S_IFREG | member.mode
    elif kind is _SYMLINK:
        mode = SYMLINK  # Linux has no other permissions of them, whatever a tar says (symlink(7))
    else:
        mode = _TYPES[kind] | member.mode
    uid, gid = (member.uid, member.gid) if context.owners_kept else (None, None)
    names = context.tree.names_of(code) or 1
    return make_attributes((mode, size, member.mtime_ns, names, uid, gid, member.rdev, None))


def _visible_name(name: bytes) -> bytes:
    """A tar can have names that no file system takes; the kernel refuses a whole listing for one of
    them.
    """
    return name if len(name) <= _NAME_MAX else mangle(name)
