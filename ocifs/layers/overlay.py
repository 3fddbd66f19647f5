"""Layers laid over each other: a pure function from indices to one tree (image-spec, layer.md "Applying Changesets").

A layer is applied as if unpacked onto the tree below it: its whiteouts first, which concern lower layers only whatever their place in
the tar, then its entries in order. A parent that is a symbolic link is followed within the root, as tools that unpack do.

Rules that hold here: pure; a whiteout is never visible; nothing leads above the root; names of a hard link lead to the same thing. In a
single layer shown by itself a hard link whose target lies in a lower layer is a symbolic link to that name. Directories that were not
used for a while are packed, so that a million entries take as little memory on the way as in the end.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.member import Kind, LayerIndex, Member
from ocifs.layers.merged import DIRECTORY, LAYERS, NOWHERE, UP_MOST, Directories, Item, Tree, code_of, upward
from ocifs.settings import Limits

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # what AUFS kept for itself
_MAX_LINKS = 255  # followed on the way to one entry, as many as Go's unpackers follow
_OPEN = 32  # directories that are not packed at a time, or twice as many
_ROOT = DIRECTORY


def merge(layers: Sequence[LayerIndex], limits: Limits, *, markers: bool = True, alone: bool = False) -> Tree:
    """Lay layers over each other, lowest first. Without `markers`, names that begin with `.wh.` are names like others.

    `alone`: this is one layer of several, shown by itself. Raises Malformed where entries cannot be applied (links in circles on the way
    to one, a hard link to nothing), and LimitExceeded where directories that no entry makes are too many.
    """
    if len(layers) > LAYERS:
        raise LimitExceeded(f"{len(layers)} layers are more than can be laid over each other ({LAYERS})")
    stack = _Stack(layers, limits, alone=alone)
    for number, layer in enumerate(layers):
        stack.apply(number, layer.members, markers)
    return stack.tree()


class _Directory:
    """A directory on its way: its names and their codes in a dictionary, or packed."""

    __slots__ = ("_names", "codes", "layer", "open", "place")

    def __init__(self, layer: int = NOWHERE, place: int = 0) -> None:
        self.layer = layer
        self.place = place
        self.open: dict[bytes, int] | None = {}
        self._names = b""
        self.codes = array("Q")

    def unpack(self) -> dict[bytes, int]:
        found = dict(zip(self._names.split(b"/"), self.codes, strict=True)) if self.codes else {}
        self.open, self._names, self.codes = found, b"", array("Q")
        return found

    def pack(self) -> bytes:
        """The names, joined; `codes` goes with them."""
        if self.open is not None:
            self._names, self.codes, self.open = b"/".join(self.open), array("Q", self.open.values()), None
        return self._names


class _Stack:
    """The tree of the layers so far."""

    def __init__(self, layers: Sequence[LayerIndex], limits: Limits, *, alone: bool) -> None:
        self._layers = tuple(layers)
        self._lookup = Tree(self._layers, Directories(), {})
        self._limits = limits
        self._alone = alone
        self._implied = 0
        self._layer = 0
        self._directories = [_Directory()]
        self._open: list[_Directory] = []
        self._plinks: dict[bytes, int] = {}
        self._shared: set[int] = set()  # codes that hard links lead to
        self._last = (
            b"",
            _ROOT,
        )  # the path of a directory that was walked to, and its code: entries come directory by directory

    def apply(self, number: int, members: Sequence[Member], markers: bool) -> None:
        self._layer = number
        self._plinks = {}
        self._last = (b"", _ROOT)
        removed = self._prepare(members, markers) if number else {}
        for place, member in enumerate(members):
            if markers and self._is_marker(place, member):
                continue
            self._put(place, member, removed.get(place))
            self._pack_idle()

    def _prepare(self, members: Sequence[Member], markers: bool) -> dict[int, int]:
        """Take away what is whited out in the layers below; gives what hard links lead to there, whether it was taken away or not."""
        targets: dict[int, int] = {}
        whiteouts: list[bytes] = []
        for place, member in enumerate(members):
            if member.kind is Kind.HARDLINK:
                found = self._find(member.link)
                if found is not None:
                    targets[place] = found
            if markers and member.path.rpartition(b"/")[2].startswith(_WHITEOUT):
                whiteouts.append(member.path)
            self._pack_idle()
        for path in whiteouts:
            self._white_out(path)
            self._pack_idle()
        return targets

    def _white_out(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        below = self._find(parent, follow=True)
        if below is None or not below & DIRECTORY:
            return
        if name == _OPAQUE:
            self._names(below).clear()
        elif not name.startswith(_AUFS):
            self._names(below).pop(name[len(_WHITEOUT) :], None)

    def _is_marker(self, place: int, member: Member) -> bool:
        """Whether an entry is a whiteout or AUFS' own, or lies in one; the latter may be what hard links of this layer mean."""
        if b".wh." not in member.path or not any(part.startswith(_WHITEOUT) for part in member.path.split(b"/")):
            return False
        if member.path.startswith(_AUFS) and member.kind is Kind.FILE:
            self._plinks[member.path] = code_of(self._layer, place)
        return True

    def _put(self, place: int, member: Member, removed: int | None) -> None:
        if not member.path:
            if member.kind is Kind.DIRECTORY:
                self._directories[0].layer, self._directories[0].place = self._layer, place
            return
        parent, _, name = member.path.rpartition(b"/")
        last, here = self._last
        if parent != last:
            here = self._directory(parent)
            self._last = parent, here
        names = self._names(here)
        if member.kind is Kind.HARDLINK:
            code = self._target(place, member, removed)
        elif member.kind is Kind.DIRECTORY:
            there = names.get(name, 0)
            code = there if there & DIRECTORY else self._make()
            directory = self._directories[code ^ DIRECTORY]
            directory.layer, directory.place = self._layer, place
        else:
            code = code_of(self._layer, place)
        if names.get(name, code) != code:
            self._last = (b"", _ROOT)  # the way there may lead elsewhere now
        # A name that is given anew stands where it stood in the dictionary; the order of a listing means nothing.
        names[name] = code

    def _target(self, place: int, member: Member, removed: int | None) -> int:
        target = self._plinks.get(member.link)
        if target is None:
            target = self._find(member.link)
        if target is None:
            target = removed
        if target is not None and not target & DIRECTORY:
            self._shared.add(target)
            return target
        if self._alone and target is None:
            up = member.path.count(b"/")
            if up > UP_MOST:
                raise LimitExceeded(f"an entry of the layer lies deeper than {UP_MOST} directories")
            return upward(code_of(self._layer, place), up)
        what = "a directory" if target is not None else "nothing"
        raise Malformed(f"layer {self._layer} has a hard link {_show(member.path)} to {what}: {_show(member.link)}")

    def _find(self, path: bytes, *, follow: bool = False) -> int | None:
        """The code that a path leads to in the tree so far, with links on the way followed, and at its end with `follow`."""
        walked = self._walk(path, follow=follow)
        return None if walked is None or walked[1] else walked[0][-1][1]

    def _directory(self, path: bytes) -> int:
        """The code of a directory, which is made where it is missing, and takes the place of what is none."""
        if not path:
            return _ROOT
        walked = self._walk(path, follow=True)
        if walked is None:
            raise Malformed(f"layer {self._layer} has an entry behind links that lead in circles: {_show(path)}")
        stack, todo = walked
        name, here = stack[-1]
        if not here & DIRECTORY:  # a file where the layer has a directory: the upper one holds
            todo = [name, *todo]
            here = stack[-2][1]
        for name in todo:
            made = self._imply()
            self._names(here)[name] = made
            here = made
        return here

    def _make(self) -> int:
        directory = _Directory()
        self._directories.append(directory)
        self._open.append(directory)
        return len(self._directories) - 1 | DIRECTORY

    def _imply(self) -> int:
        """A directory that no entry makes. Paths of a megabyte could ask for millions of them."""
        self._implied += 1
        most = self._limits.implied_directories
        if self._implied > most:
            raise LimitExceeded(f"more directories are implied than limits.implied_directories ({most})")
        return self._make()

    def _names(self, code: int) -> dict[bytes, int]:
        """The names of a directory, to be changed until the next `_pack_idle`."""
        directory = self._directories[code ^ DIRECTORY]
        if directory.open is None:
            self._open.append(directory)
            return directory.unpack()
        return directory.open

    def _pack_idle(self) -> None:
        if len(self._open) > 2 * _OPEN:  # and one path may have opened thousands
            for directory in self._open[:-_OPEN]:
                directory.pack()
            del self._open[:-_OPEN]

    def _walk(self, path: bytes, *, follow: bool) -> tuple[list[tuple[bytes, int]], list[bytes]] | None:
        """From the root to where a path ends or stops, names and codes; and the names that are not there; None for links in circles."""
        stack, links = [(b"", _ROOT)], 0
        todo = path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            here = stack[-1][1]
            if name in (b"", b"."):
                continue
            if name == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            found = self._names(here).get(name) if here & DIRECTORY else None
            if found is None:
                return stack, _lexical([name, *todo[::-1]])
            target = self._link(found) if (follow or todo) and not found & DIRECTORY else None
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    return None
                stack = stack[:1] if target.startswith(b"/") else stack
                todo += target.split(b"/")[::-1]
                continue
            stack.append((name, found))
        return stack, []

    def _link(self, code: int) -> bytes | None:
        """Where an entry leads to, if it is a symbolic link."""
        member = Item(self._lookup, code).member
        return member.link if member.kind is Kind.SYMLINK else None

    def tree(self) -> Tree:
        """The tree of all layers."""
        packed = Directories()
        links: Counter[int] = Counter()
        numbers = {0: 0}
        todo, done = [0], _Directory()
        for old in todo:  # grows on the way
            directory = self._directories[old]
            names = directory.pack()
            codes = directory.codes
            for position, code in enumerate(codes):
                if code & DIRECTORY:
                    todo.append(code ^ DIRECTORY)
                    numbers[code ^ DIRECTORY] = len(numbers)
                    codes[position] = numbers[code ^ DIRECTORY] | DIRECTORY
                elif code in self._shared:
                    links[code] += 1
            packed.add(directory.layer, directory.place, names, codes)
            self._directories[old] = done
        return Tree(self._layers, packed, {code: count for code, count in links.items() if count != 1})


def _lexical(names: list[bytes]) -> list[bytes]:
    """Names that are not there, with `..` taken as text, since there is nothing that could be a link."""
    kept: list[bytes] = []
    for name in names:
        if name == b"..":
            del kept[-1:]
        elif name not in (b"", b"."):
            kept.append(name)
    return kept


def _show(path: bytes) -> str:
    return repr(path.decode(errors="replace"))[:200]
