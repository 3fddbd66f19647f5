"""The inside of layers as nodes: directories, files, links and devices as the tars have them.

Rules that hold here: nothing is asked until a name is looked up or listed; a file has one inode wherever the layer's entry appears with as
many names, a directory one a place; a link that would lead outside is shown so that it stays inside, unless links are raw; owners are
the mounting user unless they are kept.
"""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from ocifs.content import Blob
from ocifs.errors import NoAttribute, NotFound
from ocifs.layers.member import Kind, Member
from ocifs.layers.merged import Item, Tree, code_of
from ocifs.layers.unpack import Layer
from ocifs.layers.workshop import Workshop
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.settings import ViewSettings
from ocifs.tree.blob import elsewhere, scope_of, sized
from ocifs.tree.inside import inside
from ocifs.tree.names import mangle
from ocifs.tree.node import DIRECTORY, FOREVER, Attributes, Directory, Entry, Node, Plain, Spot

_NAME_MAX = 255
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
# The attributes of a root are known when its layers are: until then the kernel asks each time.
_ROOT_LIFETIME = 0.0


@dataclass(frozen=True, slots=True)
class LayerStack:
    """Layers of one repository, lowest first, as they are to be shown. `alone`: one layer by itself; `markers`: whiteouts are hidden.

    `tables`: asks for tables of contents that lie beside the layers, by their layers' digests. `within`: names above everything in the
    layers that are shown already, by whoever has this tree. `mtime_ns`: the root's, until it is looked into.
    """

    repository: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest | None, ...]
    markers: bool = True
    alone: bool = False
    within: tuple[bytes, ...] = ()
    mtime_ns: int = 0
    tables: Callable[[], Awaitable[Mapping[Digest, Blob]]] | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the nodes of one tree share. `crowds`: the entries of each layer."""

    workshop: Workshop
    tree: Tree
    layers: tuple[Layer, ...]
    view: ViewSettings
    crowds: tuple[_Crowd, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "crowds", tuple(_Crowd(self, number) for number in range(len(self.layers))))


def open_layer_tree(workshop: Workshop, stack: LayerStack, view: ViewSettings, key: Hashable) -> Directory:
    """The directory of what layers hold, merged when it is first looked into."""
    return _Root(workshop, stack, view, key)


class _Member(Plain):
    """A node made from an entry of a layer."""

    __slots__ = ("_item", "_member", "_shown", "spot")
    changes = False

    def __init__(self, shown: _Shown, item: Item, member: Member, key: Hashable, size: int) -> None:
        super().__init__(key, _attributes(item, member, shown.view, size))
        self.spot = None
        self._shown = shown
        self._item = item
        self._member = member

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(name for name, _ in self._member.xattrs)

    async def attribute(self, name: bytes) -> bytes:
        for known, value in self._member.xattrs:
            if known == name:
                return value
        raise NoAttribute(f"no extended attribute {name!r} here")


class _File(_Member):
    """A file, or a device or FIFO, which nobody reads."""

    __slots__ = ()

    def opened(self) -> None:
        self._shown.workshop.hold(self._shown.layers[self._item.layer])

    def closed(self) -> None:
        self._shown.workshop.let_go(self._shown.layers[self._item.layer])

    async def read(self, offset: int, size: int) -> bytes:
        member = self._member
        if not member.size:
            return b""
        return await self._shown.workshop.read(self._shown.layers[self._item.layer], member, offset, size)


class _Link(_Member):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, shown: _Shown, item: Item, member: Member, key: Hashable, target: bytes) -> None:
        super().__init__(shown, item, member, key, len(target))
        self.target = target


class _Directory(_Member):
    """A directory. `path`: the names from the tree's root to it."""

    __slots__ = ("_names", "_path")

    def __init__(self, shown: _Shown, item: Item, key: Hashable, path: tuple[bytes, ...]) -> None:
        super().__init__(shown, item, item.member, key, 0)
        self._path = path
        self._names: dict[bytes, bytes] | None = None

    async def lookup(self, name: bytes) -> Node:
        assert self._item.children is not None
        item = self._item.children.get(name) if len(name) <= _NAME_MAX else None
        if item is not None:
            return self._node(name, name, item)
        if self._names is None:
            self._names = {_shown_name(real): real for real in self._item.children if len(real) > _NAME_MAX}
        real = self._names.get(name)
        if real is None:
            raise NotFound(f"no {name.decode(errors='replace')!r} in this directory of the layer")
        return self._node(name, real, self._item.children[real])

    async def entries(self) -> Sequence[Entry]:
        assert self._item.children is not None
        tree, node = self._item.tree, self._node
        named = ((_shown_name(real), real, Item(tree, code)) for real, code in self._item.children.codes.items())
        return [Entry(name, node(name, real, item)) for name, real, item in named]

    def _node(self, name: bytes, real: bytes, item: Item) -> Node:
        shown = self._shown
        if item.children is not None:
            return _Directory(shown, item, (self.key, name), (*self._path, real))
        member = item.member
        if member.kind is Kind.SYMLINK and shown.view.links == "inside":
            target = inside(shown.tree.root, self._path, member.link)
            if target != member.link:  # a link that is shown otherwise than it is depends on where it stands
                return _Link(shown, item, member, (self.key, name), target)
        return _as_it_is(shown, item, member)


def _as_it_is(shown: _Shown, item: Item, member: Member) -> _File | _Link:
    """The node of what is no directory and is shown as its layer has it, wherever it stands."""
    crowd, number, links = shown.crowds[item.layer], item.number, item.links
    key = (crowd.key, number, links)
    is_link = member.kind is Kind.SYMLINK
    node = _Link(shown, item, member, key, member.link) if is_link else _File(shown, item, member, key, member.size)
    if links == 1 and item.is_entry:
        node.spot = Spot(crowd, number)
    return node


class _Crowd:
    """The entries of a layer that have one name and are shown as they are."""

    __slots__ = ("_layer", "_shown", "key")

    def __init__(self, shown: _Shown, layer: int) -> None:
        self._shown = shown
        self._layer = layer
        self.key = ("layer", str(shown.layers[layer].key), *scope_of(shown.workshop.blobs))

    @property
    def size(self) -> int:
        return len(self._shown.tree.layers[self._layer].members)

    def node(self, place: int) -> Node:
        item = Item(self._shown.tree, code_of(self._layer, place))
        return _as_it_is(self._shown, item, item.member)


class _Root(Plain):
    """The root of a tree, which knows nothing until it is looked into."""

    __slots__ = ("_inner", "_stack", "_view", "_workshop", "lifetime")

    def __init__(self, workshop: Workshop, stack: LayerStack, view: ViewSettings, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=stack.mtime_ns, nlink=2))
        self.lifetime = _ROOT_LIFETIME
        self._workshop = workshop
        self._stack = stack
        self._view = view
        self._inner: _Directory | None = None

    async def lookup(self, name: bytes) -> Node:
        return await (await self._open()).lookup(name)

    async def entries(self) -> Sequence[Entry]:
        return await (await self._open()).entries()

    def attribute_names(self) -> Sequence[bytes]:
        return self._inner.attribute_names() if self._inner is not None else ()

    async def attribute(self, name: bytes) -> bytes:
        return await (await self._open()).attribute(name)

    async def _open(self) -> _Directory:
        if self._inner is None:
            stack = self._stack
            tables = await stack.tables() if stack.tables is not None else {}
            layers = tuple(
                [
                    self._workshop.layer(
                        await sized(self._workshop.blobs, Blob.of(stack.repository, descriptor)),
                        diff_id,
                        descriptor.annotations,
                        tables.get(descriptor.digest),
                    )
                    for descriptor, diff_id in zip(stack.layers, stack.diff_ids, strict=True)
                ]
            )
            with elsewhere([url for descriptor in stack.layers for url in descriptor.urls]):
                tree = await self._workshop.tree(layers, markers=stack.markers, alone=stack.alone)
            shown = _Shown(self._workshop, tree, layers, self._view)
            top, path = _descend(tree.root, stack.within)
            self._inner = _Directory(shown, top, self.key, path)
            self.attributes = self._inner.attributes
            self.lifetime = FOREVER
        return self._inner


def _descend(root: Item, within: tuple[bytes, ...]) -> tuple[Item, tuple[bytes, ...]]:
    """The directory at the names `within`, where each of them is all that the one before has; else the root."""
    here = root
    for name in within:
        inner = here.children.get(name) if here.children is not None and len(here.children) == 1 else None
        if inner is None or inner.children is None:
            return root, ()
        here = inner
    return here, within


def _attributes(item: Item, member: Member, view: ViewSettings, size: int) -> Attributes:
    kind = member.kind
    mode = 0o777 if kind is Kind.SYMLINK else member.mode  # Linux has no others, whatever a tar says (symlink(7))
    uid, gid = (member.uid, member.gid) if view.owner == "keep" else (None, None)
    return Attributes(_TYPES[kind] | mode, size, member.mtime_ns, max(1, item.links), uid, gid, member.rdev)


def _shown_name(name: bytes) -> bytes:
    """A tar can have names that no file system takes; the kernel refuses a whole listing for one of them."""
    return name if len(name) <= _NAME_MAX else mangle(name)
