"""A merged tree in little memory: what each name leads to as one number, directory by directory,
and as bytes for the shelf.

A million entries take some 35 MB: their names and 8 bytes each. What an entry is stays in its
layer's index.

Rules that hold here:

- Any thread may read a tree: the event loop looks names up while a worker thread encodes it.
- Two `Item`s are equal when they are the same thing of the same tree, whatever names lead to it.
- Bytes that are not exactly what `encode` made are None.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ocifs.layers import zstd
from ocifs.layers.checksummed import seal, unseal
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex

KIND = "layer-tree.3"

DIRECTORY = 1 << 62
"""In a code: the rest is the number of a directory. Otherwise it is that of an entry: layer << 32 | place in the layer."""
UPWARD = 1 << 61
"""In a code: a hard link to what no layer here has, shown as a symbolic link to that name; UP_SHIFT on: how many directories up."""
_UP_SHIFT = 45
UP_MOST = (1 << 16) - 1
_LAYER_SHIFT = 32
PLACE = (1 << _LAYER_SHIFT) - 1
LAYERS = (1 << (_UP_SHIFT - _LAYER_SHIFT)) - 1
NOWHERE = -1  # the layer of a directory that no entry makes
_OPENED = 128  # directories whose names are at hand
_IMPLIED = LayerEntry(b"", EntryKind.DIRECTORY, 0o755)


def place_of(code: int) -> tuple[int, int]:
    """Of the code of what is no directory its layer and its place in that."""
    return code >> _LAYER_SHIFT & LAYERS, code & PLACE


def layer_of(code: int) -> int:
    """The layer alone."""
    return code >> _LAYER_SHIFT & LAYERS


def code_of(layer: int, place: int) -> int:
    """The code of an entry that is no directory."""
    return layer << _LAYER_SHIFT | place


def upward(code: int, up: int) -> int:
    """The code of an entry that is shown as a link, `up` directories up."""
    return code | UPWARD | min(up, UP_MOST) << _UP_SHIFT


@dataclass(slots=True)
class PackedDirectories:
    """Directories by their numbers, the root being 0: where the entry that gave its attributes is,
    and its names with their codes.

    The names of a directory are `names[name_ends[n - 1]:name_ends[n]]`, joined by slashes;
    `code_ends` goes with `codes`.
    """

    layers: array[int] = field(default_factory=lambda: array("i"))
    places: array[int] = field(default_factory=lambda: array("I"))
    below: array[int] = field(default_factory=lambda: array("I"))  # directories in it
    names: bytearray = field(default_factory=bytearray)
    name_ends: array[int] = field(default_factory=lambda: array("Q", [0]))
    codes: array[int] = field(default_factory=lambda: array("Q"))
    code_ends: array[int] = field(default_factory=lambda: array("Q", [0]))

    def add(self, layer: int, place: int, names: bytes, codes: Sequence[int]) -> None:
        """The next directory."""
        self.layers.append(layer)
        self.places.append(place)
        self.below.append(sum(1 for code in codes if code & DIRECTORY))
        self.names += names
        self.name_ends.append(len(self.names))
        self.codes.extend(codes)
        self.code_ends.append(len(self.codes))

    def listing(self, number: int) -> dict[bytes, int]:
        """The names of a directory and their codes."""
        first, last = self.code_ends[number : number + 2]
        if first == last:
            return {}
        start, stop = self.name_ends[number : number + 2]
        return dict(
            zip(bytes(self.names[start:stop]).split(b"/"), self.codes[first:last], strict=True)
        )


@dataclass(slots=True, weakref_slot=True, eq=False)
class MergedTree:
    """Layers merged. `links`: how many names lead to an entry where that is not one."""

    layers: tuple[LayerIndex, ...] = field(repr=False)
    directories: PackedDirectories = field(repr=False)
    links: dict[int, int] = field(repr=False)
    _opened: OrderedDict[int, dict[bytes, int]] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # of _opened

    @property
    def root(self) -> MergedEntry:
        return MergedEntry(self, DIRECTORY)

    def entry(self, code: int) -> LayerEntry:
        """The entry that a code leads to; of a directory that which gave its attributes."""
        if code & DIRECTORY:
            number = code ^ DIRECTORY
            layer = self.directories.layers[number]
            return (
                _IMPLIED
                if layer == NOWHERE
                else self.layers[layer].entries[self.directories.places[number]]
            )
        layer, place = place_of(code)
        entry = self.layers[layer].entries[place]
        if code & UPWARD:
            up = b"../" * (code >> _UP_SHIFT & UP_MOST)
            return entry._replace(kind=EntryKind.SYMLINK, link=up + entry.link)
        return entry

    def names_of(self, code: int) -> int:
        """How many names lead there, or for a directory 2 and one for each directory in it."""
        return (
            2 + self.directories.below[code ^ DIRECTORY]
            if code & DIRECTORY
            else self.links.get(code, 1)
        )

    def listing(self, number: int) -> dict[bytes, int]:
        """The names of a directory and their codes; not to be changed."""
        with self._lock:
            found = self._opened.get(number)
        if found is None:
            found = self.directories.listing(number)
            with self._lock:
                self._opened[number] = found
                while len(self._opened) > _OPENED:
                    self._opened.popitem(last=False)
        return found


class MergedEntry(NamedTuple):
    """What one or more names of a tree lead to."""

    tree: MergedTree
    code: int

    @property
    def layer(self) -> int:
        """The number of its layer in the sequence, or NOWHERE for a directory that no layer has."""
        if self.code & DIRECTORY:
            return self.tree.directories.layers[self.code ^ DIRECTORY]
        return place_of(self.code)[0]

    @property
    def number(self) -> int:
        """Its place in the layer."""
        return (
            self.tree.directories.places[self.code ^ DIRECTORY]
            if self.code & DIRECTORY
            else place_of(self.code)[1]
        )

    @property
    def entry(self) -> LayerEntry:
        return self.tree.entry(self.code)

    @property
    def children(self) -> Children | None:
        """The names in a directory; None for what is none."""
        return Children(self.tree, self.code ^ DIRECTORY) if self.code & DIRECTORY else None

    @property
    def links(self) -> int:
        """Names that lead here, or for a directory 2 and one for each directory in it."""
        return self.tree.names_of(self.code)


class Children(Mapping[bytes, MergedEntry]):
    """The names in a directory and what they lead to."""

    __slots__ = ("_listing", "_tree")

    def __init__(self, tree: MergedTree, number: int) -> None:
        self._tree = tree
        self._listing = tree.listing(number)

    def __getitem__(self, name: bytes) -> MergedEntry:
        return MergedEntry(self._tree, self._listing[name])

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._listing)

    def __len__(self) -> int:
        return len(self._listing)


def directories(root: MergedEntry) -> Iterator[MergedEntry]:
    """Every directory below and at an Item, that one first."""
    todo = [root]
    while todo:
        here = todo.pop()
        yield here
        todo += [item for item in (here.children or {}).values() if item.children is not None]


_ARRAYS = ("layers", "places", "below", "name_ends", "codes", "code_ends")


def encode(tree: MergedTree) -> bytes:
    """The bytes of a tree, without its layers."""
    packed = tree.directories
    parts = [getattr(packed, name).tobytes() for name in _ARRAYS] + [bytes(packed.names)]
    sizes = [len(part) for part in parts]
    head = {
        "kind": KIND,
        "sizes": sizes,
        "links": list(tree.links.items()),
        "layers": len(tree.layers),
    }
    return seal(head, zstd.compress(b"".join(parts)))


def decode(data: bytes, layers: Sequence[LayerIndex]) -> MergedTree | None:
    """The tree that some bytes are, over these layers; or None."""
    opened = unseal(data, KIND)
    if opened is None or opened[0]["layers"] != len(layers):
        return None
    head: dict[str, Any] = opened[0]
    plain, place, packed = zstd.decompress(opened[1]), 0, PackedDirectories()
    for name, size in zip(_ARRAYS, head["sizes"], strict=False):
        column = array(getattr(packed, name).typecode)
        column.frombytes(plain[place : place + size])
        setattr(packed, name, column)
        place += size
    packed.names = bytearray(plain[place:])
    return MergedTree(tuple(layers), packed, dict(head["links"]))
