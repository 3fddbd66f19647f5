"""Inodes and handles: which number the kernel has for which node.

`Operations` owns one `Inodes` and two `Handles`, and calls them from the event loop. No method
waits, and nothing here calls pyfuse3.

The kernel counts lookups: each entry that it receives from lookup or readdir adds one, and a forget
returns some. Between the two it may use the number in any request. So the table holds for each
number a node, its key and the count:

    add_lookup ---> count > 0: `node(number)` answers ---> forget to 0: the node is dropped

A layer tree can have millions of files, and `find` makes the kernel look up all of them. For nodes
with a slot (`ocifs.tree.node.InodeSlot`) the table stores the range and an array of counts, four
bytes for each node instead of 600, and creates the node again when a request needs it.

Numbers have 63 bits, since some programs store them in a signed type:

    bit 62 clear   a hash of the key
    bit 62 set     22 bits: a hash of the range's key; 40 bits: the position in the range

Rules that hold here:

- Nodes with equal keys have one number while the kernel uses any of them.
- A number is made from the key. It is the same in every mount, in any order of lookups, except when
  hashes collide.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, NewType, TypeVar

from ocifs.errors import OcifsError
from ocifs.tree.node import Directory, DirectoryEntry, InodeRange, Node

Inode = NewType("Inode", int)
Handle = NewType("Handle", int)
ROOT = Inode(1)

# Some tools give the numbers below a meaning.
_FIRST_FREE = 16
_RANGES = 1 << 62
_MASK = _RANGES - 1
_POSITION_BITS = 40
_POSITIONS = (1 << _POSITION_BITS) - 1
_RANGE_MASK = (1 << 62 - _POSITION_BITS) - 1

T = TypeVar("T")


@dataclass(slots=True)
class _KnownNode:
    """A node that the kernel uses, its key when it was added, and its lookup count."""

    node: Node
    key: Hashable
    lookups: int = 0


class _RangeLookups:
    """The lookup counts of a range's nodes. `used` is the number of counts that are not 0."""

    __slots__ = ("inode_range", "lookups", "used")

    def __init__(self, inode_range: InodeRange) -> None:
        self.inode_range = inode_range
        self.used = 0
        self.lookups = array("I", bytes(4 * inode_range.size))


class Inodes:
    """The inodes that the kernel uses."""

    def __init__(self, root: Directory) -> None:
        self._known: dict[Inode, _KnownNode] = {ROOT: _KnownNode(root, root.key, 1)}
        self._numbers: dict[Hashable, Inode] = {root.key: ROOT}
        self._ranges: dict[int, _RangeLookups] = {}
        self._range_numbers: dict[Hashable, int] = {}
        # The range used last, its counts and the number of its first node. The next lookup is
        # nearly always in the same range.
        self._latest: tuple[InodeRange | None, _RangeLookups | None, int] = (None, None, 0)

    def __len__(self) -> int:
        return len(self._known) + sum(lookups.used for lookups in self._ranges.values())

    def number(self, node: Node) -> Inode:
        """The number that a node has, or would get."""
        fast = node.fast
        slot = None if fast is None else fast.slot
        if slot is not None:
            return Inode(self._first(self._range_number(slot.inode_range.key)) | slot.position)
        known = self._numbers.get(node.key)
        if known is not None:
            return known
        candidate = _hash(node.key) & _MASK
        while candidate < _FIRST_FREE or candidate in self._known:
            candidate = (candidate + 1) & _MASK
        return Inode(candidate)

    def add_lookup(self, node: Node) -> Inode:
        """Count a lookup, for an entry that is sent to the kernel.

        The first node of a key is kept.
        """
        fast = node.fast
        slot = None if fast is None else fast.slot
        if slot is not None:
            inode_range, position = slot
            latest, counts, first = self._latest
            if inode_range is not latest or counts is None:
                counts, first = self._counts(inode_range)
            lookups = counts.lookups
            counts.used += not lookups[position]
            lookups[position] += 1
            return Inode(first | position)
        inode = self.number(node)
        known = self._known.get(inode)
        if known is None:
            key = node.key
            known = self._known[inode] = _KnownNode(node, key)
            self._numbers[key] = inode
        known.lookups += 1
        return inode

    def forget(self, inode: Inode, lookups: int) -> None:
        """Subtract lookups that the kernel has returned."""
        if inode & _RANGES:
            self._forget_position(inode, lookups)
            return
        known = self._known.get(inode)
        # The root stays until the mount ends: no lookup of its parent could create it again.
        if known is None or inode == ROOT:
            return
        known.lookups -= lookups
        if known.lookups <= 0:
            del self._known[inode]
            del self._numbers[known.key]

    def node(self, inode: Inode) -> Node | None:
        """The node of a number, or None if the kernel does not use it."""
        if inode & _RANGES:
            position = inode & _POSITIONS
            counts = self._ranges.get((inode & _MASK) >> _POSITION_BITS)
            if counts is None or position >= len(counts.lookups) or not counts.lookups[position]:
                return None
            return counts.inode_range.node(position)
        known = self._known.get(inode)
        return None if known is None else known.node

    def _first(self, range_number: int) -> int:
        return _RANGES | range_number << _POSITION_BITS

    def _range_number(self, key: Hashable) -> int:
        """The number that a range has, or would get."""
        known = self._range_numbers.get(key)
        if known is not None:
            return known
        number = _hash(key) & _RANGE_MASK
        while number in self._ranges:
            number = (number + 1) & _RANGE_MASK
        return number

    def _counts(self, inode_range: InodeRange) -> tuple[_RangeLookups, int]:
        """The counts of a range and the number of its first node. Makes it the latest range."""
        number = self._range_number(inode_range.key)
        counts = self._ranges.get(number)
        if counts is None:
            counts = self._ranges[number] = _RangeLookups(inode_range)
            self._range_numbers[inode_range.key] = number
        first = self._first(number)
        self._latest = inode_range, counts, first
        return counts, first

    def _forget_position(self, inode: Inode, lookups: int) -> None:
        position = inode & _POSITIONS
        counts = self._ranges.get((inode & _MASK) >> _POSITION_BITS)
        if counts is None or position >= len(counts.lookups) or not counts.lookups[position]:
            return
        # The array is unsigned, and raises an error for a negative number.
        remaining = max(0, counts.lookups[position] - lookups)
        counts.lookups[position] = remaining
        counts.used -= not remaining
        if not counts.used:
            del self._ranges[self._range_numbers.pop(counts.inode_range.key)]
            # The next lookup must not count in an array that is no longer in the table.
            self._latest = None, None, 0


class Handles(Generic[T]):
    """Values of open handles. A number is never used twice."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.newest = Handle(0)
        self._open: dict[Handle, T] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, value: T) -> Handle:
        handle = self.newest = Handle(next(self._numbers))
        self._open[handle] = value
        return handle

    def get(self, handle: Handle) -> T | None:
        return self._open.get(handle)

    def close(self, handle: Handle) -> T | None:
        """Remove a handle, and return its value."""
        return self._open.pop(handle, None)


@dataclass(slots=True)
class OpenDirectory:
    """An open directory. Its listing is created once, and stays the same until rewinddir(3).

    `error` ends the listing after `entries`.
    """

    directory: Directory
    pid: int
    inode: Inode
    entries: Sequence[DirectoryEntry] | None = None
    error: OcifsError | None = None


def _hash(key: Hashable) -> int:
    # Python's own hash of a string differs in each process.
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
