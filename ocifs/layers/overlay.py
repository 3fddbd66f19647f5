"""Layers laid over each other: a pure function from indices to one tree (image-spec, layer.md "Applying Changesets").

A layer is applied as if unpacked onto the tree below it: its whiteouts first, which concern lower layers only whatever their place in
the tar, then its entries in order. A parent that is a symbolic link is followed within the root, as tools that unpack do.

Rules that hold here: pure; a whiteout is never visible; nothing leads above the root; a name of a hard link is the same `Item` as the
other names. In a single layer shown by itself a hard link whose target lies in a lower layer is a symbolic link to that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.member import Kind, LayerIndex, Member
from ocifs.settings import Limits

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # what AUFS kept for itself
_MAX_LINKS = 255  # followed on the way to one entry, as many as Go's unpackers follow


@dataclass(slots=True, eq=False)
class Item:
    """What one or more names of a tree lead to. `layer`: its layer's number in the sequence, or -1 for a directory that no layer has.

    `number`: its place in the layer. `links`: names that lead here, or for a directory 2 and one for each directory in it.
    """

    member: Member
    layer: int
    number: int
    children: dict[bytes, Item] | None = None
    links: int = 0


@dataclass(slots=True, weakref_slot=True)
class Tree:
    """Layers merged. The layers themselves are kept alive with it: items' numbers are theirs."""

    root: Item
    layers: tuple[LayerIndex, ...] = field(repr=False)


def merge(layers: Sequence[LayerIndex], limits: Limits, *, markers: bool = True, alone: bool = False) -> Tree:
    """Lay layers over each other, lowest first. Without `markers`, names that begin with `.wh.` are names like others.

    `alone`: this is one layer of several, shown by itself. Raises Malformed where entries cannot be applied (links in circles on the way
    to one, a hard link to nothing), and LimitExceeded where directories that no entry makes are too many.
    """
    stack = _Stack(limits, alone=alone)
    for number, layer in enumerate(layers):
        stack.apply(number, layer.members, markers)
    _count(stack.root)
    return Tree(stack.root, tuple(layers))


class _Stack:
    """The tree of the layers so far."""

    def __init__(self, limits: Limits, *, alone: bool) -> None:
        self._limits = limits
        self._implied = 0
        self.root = _implied()
        self._alone = alone
        self._layer = 0
        self._plinks: dict[bytes, Item] = {}

    def apply(self, number: int, members: Sequence[Member], markers: bool) -> None:
        self._layer = number
        self._plinks = {}
        removed = self._lower_targets(members)
        if markers:
            self._white_out(members)
        for place, member in enumerate(members):
            if markers and self._is_marker(place, member):
                continue
            self._put(place, member, removed.get(place))

    def _lower_targets(self, members: Sequence[Member]) -> dict[int, Item]:
        """What hard links of this layer lead to in the layers below, which its whiteouts may take away."""
        if not self._layer:
            return {}
        found = (
            (place, self._find(member.link)) for place, member in enumerate(members) if member.kind is Kind.HARDLINK
        )
        return {place: item for place, item in found if item is not None}

    def _white_out(self, members: Sequence[Member]) -> None:
        for member in members:
            parent, _, name = member.path.rpartition(b"/")
            if not name.startswith(_WHITEOUT):
                continue
            below = self._find(parent, follow=True)
            if below is None or below.children is None:
                continue
            if name == _OPAQUE:
                below.children.clear()
            elif not name.startswith(_AUFS):
                below.children.pop(name[len(_WHITEOUT) :], None)

    def _is_marker(self, place: int, member: Member) -> bool:
        """Whether an entry is a whiteout or AUFS' own, or lies in one; the latter may be what hard links of this layer mean."""
        if b".wh." not in member.path or not any(part.startswith(_WHITEOUT) for part in member.path.split(b"/")):
            return False
        if member.path.startswith(_AUFS) and member.kind is Kind.FILE:
            self._plinks[member.path] = Item(member, self._layer, place)
        return True

    def _put(self, place: int, member: Member, removed: Item | None) -> None:
        if not member.path:
            if member.kind is Kind.DIRECTORY:
                self.root.member, self.root.layer, self.root.number = member, self._layer, place
            return
        parent, _, name = member.path.rpartition(b"/")
        children = self._directory(parent)
        if member.kind is Kind.HARDLINK:
            item = self._target(place, member, removed)
        elif member.kind is Kind.DIRECTORY:
            item = Item(member, self._layer, place, {})
            there = children.get(name)
            if there is not None and there.children is not None:
                item.children = there.children
        else:
            item = Item(member, self._layer, place)
        # A name that is given anew stands where it stood in the dictionary; the order of a listing means nothing.
        children[name] = item

    def _target(self, place: int, member: Member, removed: Item | None) -> Item:
        target = self._plinks.get(member.link) or self._find(member.link) or removed
        if target is not None and target.children is None:
            return target
        if self._alone and target is None:
            up = b"../" * member.path.count(b"/")
            return Item(replace(member, kind=Kind.SYMLINK, link=up + member.link), self._layer, place)
        what = "a directory" if target is not None else "nothing"
        raise Malformed(f"layer {self._layer} has a hard link {_show(member.path)} to {what}: {_show(member.link)}")

    def _find(self, path: bytes, *, follow: bool = False) -> Item | None:
        """What a path leads to in the tree so far, with links on the way followed, and at its end with `follow`."""
        walked = self._walk(path, follow=follow)
        return None if walked is None or walked[1] else walked[0][-1]

    def _directory(self, path: bytes) -> dict[bytes, Item]:
        """The children of a directory, which is made where it is missing, and takes the place of what is none."""
        if not path:
            assert self.root.children is not None
            return self.root.children
        walked = self._walk(path, follow=True)
        if walked is None:
            raise Malformed(f"layer {self._layer} has an entry behind links that lead in circles: {_show(path)}")
        stack, todo = walked
        here = stack[-1]
        if here.children is None:  # a file where the layer has a directory: the upper one holds
            here = self._replace(stack)
        for name in todo:
            assert here.children is not None
            made = here.children[name] = self._imply()
            here = made
        assert here.children is not None
        return here.children

    def _imply(self) -> Item:
        """A directory that no entry makes. Paths of a megabyte could ask for millions of them."""
        self._implied += 1
        if self._implied > self._limits.layer_members:
            raise LimitExceeded(
                f"more directories are implied than limits.layer_members ({self._limits.layer_members})"
            )
        return _implied()

    def _replace(self, stack: list[Item]) -> Item:
        made, parent = self._imply(), stack[-2]
        assert parent.children is not None
        name = next(name for name, item in parent.children.items() if item is stack[-1])
        parent.children[name] = made
        return made

    def _walk(self, path: bytes, *, follow: bool) -> tuple[list[Item], list[bytes]] | None:
        """The items from the root to where a path ends or stops, and the names that are not there; None for links in circles."""
        stack, links = [self.root], 0
        todo = path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            here = stack[-1]
            if name in (b"", b"."):
                continue
            if name == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            found = None if here.children is None else here.children.get(name)
            if found is None:
                return stack, _lexical([name, *todo[::-1]])
            if found.member.kind is Kind.SYMLINK and (follow or todo):
                links += 1
                if links > _MAX_LINKS:
                    return None
                target = found.member.link
                stack = [self.root] if target.startswith(b"/") else stack
                todo += target.split(b"/")[::-1]
                continue
            stack.append(found)
        return stack, []


def _lexical(names: list[bytes]) -> list[bytes]:
    """Names that are not there, with `..` taken as text, since there is nothing that could be a link."""
    kept: list[bytes] = []
    for name in names:
        if name == b"..":
            del kept[-1:]
        elif name not in (b"", b"."):
            kept.append(name)
    return kept


def _implied() -> Item:
    """A directory that entries lie in and that no entry makes."""
    return Item(Member(b"", Kind.DIRECTORY, 0o755), -1, 0, {})


def _count(root: Item) -> None:
    for directory in directories(root):
        assert directory.children is not None
        directory.links = 2
        for item in directory.children.values():
            if item.children is None:
                item.links += 1
            else:
                directory.links += 1


def directories(root: Item) -> Iterator[Item]:
    """Every directory of a tree, the root first."""
    todo = [root]
    while todo:
        here = todo.pop()
        yield here
        todo += [item for item in (here.children or {}).values() if item.children is not None]


def _show(path: bytes) -> str:
    return repr(path.decode(errors="replace"))[:200]
