"""A merged tree in little memory, and its encoding for the derived cache.

For each directory the tree contains its names, and a number (code) for each name. A code refers to
a directory, or to an entry in the index of its layer. A million entries take about 35 MB: their
names, and 8 bytes each. Attributes stay in the layers' indexes.

Rules:

- Any thread may read a tree: the event loop looks names up while a worker thread encodes it.
- Two `MergedEntry`s are equal if they refer to the same entry of the same tree, by any name.
- Data that `encode` did not return is None.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cachetools import FIFOCache

from ocifs.layers import zstd
from ocifs.layers.checksummed import seal, unseal
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex

KIND = "layer-tree.3"

DIRECTORY = 1 << 62
"""A flag of a code: the other bits are the number of a directory.

Without the flag they are `layer << 32 | number of the entry`.
"""
UPWARD = 1 << 61
"""A flag of a code: a hard link to an entry that is in no layer, shown as a symbolic link.

The bits from _UP_SHIFT on are the number of `../` in its target.
"""
_UP_SHIFT = 45
UP_MOST = (1 << 16) - 1
_LAYER_SHIFT = 32
POSITION = (1 << _LAYER_SHIFT) - 1
LAYERS = (1 << (_UP_SHIFT - _LAYER_SHIFT)) - 1
NOWHERE = -1  # the layer of a directory without an entry
_CACHED_LISTINGS = 128
# The attributes of a directory that only paths of other entries imply.
_IMPLIED = LayerEntry(b"", EntryKind.DIRECTORY, 0o755)


def position_of(code: int) -> tuple[int, int]:
    """Return the layer of an entry that is not a directory, and its number in the layer."""
    return code >> _LAYER_SHIFT & LAYERS, code & POSITION


def layer_of(code: int) -> int:
    """Return the layer of an entry that is not a directory."""
    return code >> _LAYER_SHIFT & LAYERS


def code_of(layer: int, position: int) -> int:
    """Return the code of an entry that is not a directory."""
    return layer << _LAYER_SHIFT | position


def upward(code: int, up: int) -> int:
    """Return the code of an entry that is shown as a link to a name, `up` directories up."""
    return code | UPWARD | min(up, UP_MOST) << _UP_SHIFT


@dataclass(slots=True)
class PackedDirectories:
    """Columns of directories by their numbers, starting with the root.

    `layers` and `positions`: the entry with the directory's attributes. `below`: the number of
    directories in it. The names of directory n are `names[name_ends[n] : name_ends[n + 1]]`, joined
    by slashes. `code_ends` and `codes` are used in the same way.
    """

    layers: array[int] = field(default_factory=lambda: array("i"))
    positions: array[int] = field(default_factory=lambda: array("I"))
    below: array[int] = field(default_factory=lambda: array("I"))
    names: bytearray = field(default_factory=bytearray)
    name_ends: array[int] = field(default_factory=lambda: array("Q", [0]))
    codes: array[int] = field(default_factory=lambda: array("Q"))
    code_ends: array[int] = field(default_factory=lambda: array("Q", [0]))

    def add(self, layer: int, position: int, names: bytes, codes: Sequence[int]) -> None:
        """Append a directory."""
        self.layers.append(layer)
        self.positions.append(position)
        self.below.append(sum(1 for code in codes if code & DIRECTORY))
        self.names += names
        self.name_ends.append(len(self.names))
        self.codes.extend(codes)
        self.code_ends.append(len(self.codes))

    def listing(self, number: int) -> dict[bytes, int]:
        """Return the names of a directory and their codes."""
        first, last = self.code_ends[number : number + 2]
        # An empty text would be split into one empty name.
        if first == last:
            return {}
        start, stop = self.name_ends[number : number + 2]
        return dict(
            zip(bytes(self.names[start:stop]).split(b"/"), self.codes[first:last], strict=True)
        )


@dataclass(slots=True, weakref_slot=True, eq=False)
class MergedTree:
    """A merged tree. `links`: the number of names of each entry that does not have exactly one.

    `unsupported_xattrs`: names of extended attributes that no entry has (decision 0352).
    """

    layers: tuple[LayerIndex, ...] = field(repr=False)
    directories: PackedDirectories = field(repr=False)
    links: dict[int, int] = field(repr=False)
    unsupported_xattrs: frozenset[bytes] = frozenset()
    # FIFO: a hit in an LRU cache costs a microsecond more, and each lookup of a name is one.
    _listings: FIFOCache[int, dict[bytes, int]] = field(
        default_factory=lambda: FIFOCache(_CACHED_LISTINGS), repr=False
    )
    # Guards `_listings`.
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def root(self) -> MergedEntry:
        return MergedEntry(self, DIRECTORY)

    def entry(self, code: int) -> LayerEntry:
        """Return the entry of a code; for a directory the one with its attributes."""
        if code & DIRECTORY:
            number = code ^ DIRECTORY
            layer = self.directories.layers[number]
            return (
                _IMPLIED
                if layer == NOWHERE
                else self.layers[layer].entries[self.directories.positions[number]]
            )
        layer, position = position_of(code)
        # Entries are created from the packed index for each call.
        entry = self.layers[layer].entries[position]
        if code & UPWARD:
            up = b"../" * (code >> _UP_SHIFT & UP_MOST)
            return entry._replace(kind=EntryKind.SYMLINK, link=up + entry.link)
        return entry

    def names_of(self, code: int) -> int:
        """Return the link count: for a directory 2, and one for each directory in it."""
        return (
            2 + self.directories.below[code ^ DIRECTORY]
            if code & DIRECTORY
            else self.links.get(code, 1)
        )

    def listing(self, number: int) -> dict[bytes, int]:
        """Return the names of a directory and their codes. The caller must not modify them."""
        with self._lock:
            listing = self._listings.get(number)
        # Outside the lock: two threads may unpack the same listing, but neither waits.
        if listing is None:
            listing = self.directories.listing(number)
            with self._lock:
                self._listings[number] = listing
        return listing


class MergedEntry(NamedTuple):
    """An entry of a tree, by its code."""

    tree: MergedTree
    code: int

    @property
    def layer(self) -> int:
        """The number of its layer in the tree, or NOWHERE for a directory without an entry."""
        if self.code & DIRECTORY:
            return self.tree.directories.layers[self.code ^ DIRECTORY]
        return position_of(self.code)[0]

    @property
    def number(self) -> int:
        """Its number in the layer."""
        return (
            self.tree.directories.positions[self.code ^ DIRECTORY]
            if self.code & DIRECTORY
            else position_of(self.code)[1]
        )

    @property
    def entry(self) -> LayerEntry:
        return self.tree.entry(self.code)

    @property
    def children(self) -> Children | None:
        """The names in a directory; None for other entries."""
        return Children(self.tree, self.code ^ DIRECTORY) if self.code & DIRECTORY else None

    @property
    def links(self) -> int:
        """The link count: for a directory 2, and one for each directory in it."""
        return self.tree.names_of(self.code)


class Children(Mapping[bytes, MergedEntry]):
    """The names in a directory and their entries."""

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
    """Yield a directory and all directories below it."""
    todo = [root]
    while todo:
        directory = todo.pop()
        yield directory
        children = (directory.children or {}).values()
        todo += [child for child in children if child.children is not None]


_ARRAYS = ("layers", "positions", "below", "name_ends", "codes", "code_ends")


def encode(tree: MergedTree) -> bytes:
    """Encode a tree, without its layers."""
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
    """Decode a tree of these layers; None for other data."""
    opened = unseal(data, KIND)
    if opened is None or opened[0]["layers"] != len(layers):
        return None
    # The checksum matches, so the data is that of an earlier `encode`.
    head: dict[str, Any] = opened[0]
    columns, start, packed = zstd.decompress(opened[1]), 0, PackedDirectories()
    # The last size is that of the names, which are the rest.
    for name, size in zip(_ARRAYS, head["sizes"], strict=False):
        column = array(getattr(packed, name).typecode)
        column.frombytes(columns[start : start + size])
        setattr(packed, name, column)
        start += size
    packed.names = bytearray(columns[start:])
    return MergedTree(tuple(layers), packed, dict(head["links"]))
