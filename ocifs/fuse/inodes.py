"""Inodes and handles: which number the kernel has for which node.

Rules that hold here: pure; equal keys are one inode for as long as the kernel knows it; a number is
made from its key, so that it is the same in every mount and whatever was looked up before; a node
is dropped when the kernel has forgotten it as often as it was told of it; nodes of a crowd are
never kept, only counted.
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

_FIRST_FREE = 16  # below it are the root's number and, in some tools, numbers with a meaning
# An inode is unsigned, yet some programs keep it in a signed type, so 63 bits are used. The highest
# tells nodes of crowds: below it are 22 bits for the crowd and 40 for the place in it.
_RANGES = 1 << 62
_MASK = _RANGES - 1
_PLACE_BITS = 40
_PLACES = (1 << _PLACE_BITS) - 1
_BLOCK_MASK = (1 << 62 - _PLACE_BITS) - 1

T = TypeVar("T")


@dataclass(slots=True)
class _KnownNode:
    """A node that the kernel knows, how often it was told, and the key that it is known by."""

    node: Node
    key: Hashable
    lookups: int = 0


class _RangeLookups:
    """The places of a crowd that the kernel knows: how often it was told of each.

    Four bytes a place, where a node takes 600.
    """

    __slots__ = ("inode_range", "known", "lookups")

    def __init__(self, inode_range: InodeRange) -> None:
        self.inode_range = inode_range
        self.known = 0
        self.lookups = array("I", bytes(4 * inode_range.size))


class Inodes:
    """The inodes that the kernel knows of."""

    def __init__(self, root: Directory) -> None:
        self._known: dict[Inode, _KnownNode] = {ROOT: _KnownNode(root, root.key, 1)}
        self._numbers: dict[Hashable, Inode] = {root.key: ROOT}
        self._ranges: dict[int, _RangeLookups] = {}
        self._range_numbers: dict[Hashable, int] = {}
        # The crowd of the node that was counted last, what is counted of it, and the number of its
        # first place: mostly the next is of it.
        self._latest: tuple[InodeRange | None, _RangeLookups | None, int] = (None, None, 0)

    def __len__(self) -> int:
        return len(self._known) + sum(counted.known for counted in self._ranges.values())

    def number(self, node: Node) -> Inode:
        """The inode that a node has, or would have."""
        slot = getattr(node, "slot", None)
        if slot is not None:
            return Inode(_RANGES | self._block(slot.inode_range.key) << _PLACE_BITS | slot.place)
        known = self._numbers.get(node.key)
        if known is not None:
            return known
        candidate = _hash(node.key) & _MASK
        while candidate < _FIRST_FREE or candidate in self._known:
            candidate = (candidate + 1) & _MASK
        return Inode(candidate)

    def remember(self, node: Node) -> Inode:
        """Count one lookup of a node, which the kernel is told of.

        The first node of a key is the one that is kept.
        """
        slot = getattr(node, "slot", None)
        if slot is not None:
            inode_range, place = slot
            latest, counted, first = self._latest
            if inode_range is not latest or counted is None:
                counted, first = self._lookups_of(inode_range)
            lookups = counted.lookups
            counted.known += not lookups[place]
            lookups[place] += 1
            return Inode(first | place)
        inode = self.number(node)
        known = self._known.get(inode)
        if known is None:
            key = node.key
            known = self._known[inode] = _KnownNode(node, key)
            self._numbers[key] = inode
        known.lookups += 1
        return inode

    def forget(self, inode: Inode, lookups: int) -> None:
        """The kernel gives back so many lookups."""
        if inode & _RANGES:
            self._forget_place(inode, lookups)
            return
        known = self._known.get(inode)
        if known is None or inode == ROOT:
            return
        known.lookups -= lookups
        if known.lookups <= 0:
            del self._known[inode]
            del self._numbers[known.key]

    def node(self, inode: Inode) -> Node | None:
        """The node of an inode that the kernel knows."""
        if inode & _RANGES:
            place = inode & _PLACES
            counted = self._ranges.get((inode & _MASK) >> _PLACE_BITS)
            if counted is None or place >= len(counted.lookups) or not counted.lookups[place]:
                return None
            return counted.inode_range.node(place)
        known = self._known.get(inode)
        return None if known is None else known.node

    def _block(self, key: Hashable) -> int:
        """The number of a crowd, which it has, or would have."""
        known = self._range_numbers.get(key)
        if known is not None:
            return known
        block = _hash(key) & _BLOCK_MASK
        while block in self._ranges:
            block = (block + 1) & _BLOCK_MASK
        return block

    def _lookups_of(self, inode_range: InodeRange) -> tuple[_RangeLookups, int]:
        """What is counted of a crowd, and the number of its first place: from here on that of the
        latest.
        """
        block = self._block(inode_range.key)
        counted = self._ranges.get(block)
        if counted is None:
            counted = self._ranges[block] = _RangeLookups(inode_range)
            self._range_numbers[inode_range.key] = block
        first = _RANGES | block << _PLACE_BITS
        self._latest = inode_range, counted, first
        return counted, first

    def _forget_place(self, inode: Inode, lookups: int) -> None:
        place = inode & _PLACES
        counted = self._ranges.get((inode & _MASK) >> _PLACE_BITS)
        if counted is None or place >= len(counted.lookups) or not counted.lookups[place]:
            return
        left = max(0, counted.lookups[place] - lookups)
        counted.lookups[place] = left
        counted.known -= not left
        if not counted.known:
            del self._ranges[self._range_numbers.pop(counted.inode_range.key)]
            self._latest = None, None, 0


class Handles(Generic[T]):
    """What is open, by numbers that are never used twice."""

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
        """Forget a handle; what it was for."""
        return self._open.pop(handle, None)


@dataclass(slots=True)
class OpenDirectory:
    """A directory that is being listed: a listing is made once and stays as it was while the handle
    is open.
    """

    directory: Directory
    pid: int
    inode: Inode
    entries: Sequence[DirectoryEntry] | None = None
    error: OcifsError | None = None  # ends the listing after the entries


def _hash(key: Hashable) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
