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
from ocifs.tree.node import Crowd, Directory, Entry, Node

Inode = NewType("Inode", int)
Handle = NewType("Handle", int)
ROOT = Inode(1)

_FIRST_FREE = 16  # below it are the root's number and, in some tools, numbers with a meaning
# An inode is unsigned, yet some programs keep it in a signed type, so 63 bits are used. The highest
# tells nodes of crowds: below it are 22 bits for the crowd and 40 for the place in it.
_CROWDS = 1 << 62
_MASK = _CROWDS - 1
_PLACE_BITS = 40
_PLACES = (1 << _PLACE_BITS) - 1
_BLOCK_MASK = (1 << 62 - _PLACE_BITS) - 1

T = TypeVar("T")


@dataclass(slots=True)
class _Known:
    """A node that the kernel knows, how often it was told, and the key that it is known by."""

    node: Node
    key: Hashable
    lookups: int = 0


class _Counted:
    """The places of a crowd that the kernel knows: how often it was told of each.

    Four bytes a place, where a node takes 600.
    """

    __slots__ = ("crowd", "known", "lookups")

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.known = 0
        self.lookups = array("I", bytes(4 * crowd.size))


class Inodes:
    """The inodes that the kernel knows of."""

    def __init__(self, root: Directory) -> None:
        self._known: dict[Inode, _Known] = {ROOT: _Known(root, root.key, 1)}
        self._numbers: dict[Hashable, Inode] = {root.key: ROOT}
        self._crowds: dict[int, _Counted] = {}
        self._blocks: dict[Hashable, int] = {}
        # The crowd of the node that was counted last, what is counted of it, and the number of its
        # first place: mostly the next is of it.
        self._latest: tuple[Crowd | None, _Counted | None, int] = (None, None, 0)

    def __len__(self) -> int:
        return len(self._known) + sum(counted.known for counted in self._crowds.values())

    def number(self, node: Node) -> Inode:
        """The inode that a node has, or would have."""
        spot = getattr(node, "spot", None)
        if spot is not None:
            return Inode(_CROWDS | self._block(spot.crowd.key) << _PLACE_BITS | spot.place)
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
        spot = getattr(node, "spot", None)
        if spot is not None:
            crowd, place = spot
            latest, counted, first = self._latest
            if crowd is not latest or counted is None:
                counted, first = self._counted(crowd)
            lookups = counted.lookups
            counted.known += not lookups[place]
            lookups[place] += 1
            return Inode(first | place)
        inode = self.number(node)
        known = self._known.get(inode)
        if known is None:
            key = node.key
            known = self._known[inode] = _Known(node, key)
            self._numbers[key] = inode
        known.lookups += 1
        return inode

    def forget(self, inode: Inode, lookups: int) -> None:
        """The kernel gives back so many lookups."""
        if inode & _CROWDS:
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
        if inode & _CROWDS:
            place = inode & _PLACES
            counted = self._crowds.get((inode & _MASK) >> _PLACE_BITS)
            if counted is None or place >= len(counted.lookups) or not counted.lookups[place]:
                return None
            return counted.crowd.node(place)
        known = self._known.get(inode)
        return None if known is None else known.node

    def _block(self, key: Hashable) -> int:
        """The number of a crowd, which it has, or would have."""
        known = self._blocks.get(key)
        if known is not None:
            return known
        block = _hash(key) & _BLOCK_MASK
        while block in self._crowds:
            block = (block + 1) & _BLOCK_MASK
        return block

    def _counted(self, crowd: Crowd) -> tuple[_Counted, int]:
        """What is counted of a crowd, and the number of its first place: from here on that of the
        latest.
        """
        block = self._block(crowd.key)
        counted = self._crowds.get(block)
        if counted is None:
            counted = self._crowds[block] = _Counted(crowd)
            self._blocks[crowd.key] = block
        first = _CROWDS | block << _PLACE_BITS
        self._latest = crowd, counted, first
        return counted, first

    def _forget_place(self, inode: Inode, lookups: int) -> None:
        place = inode & _PLACES
        counted = self._crowds.get((inode & _MASK) >> _PLACE_BITS)
        if counted is None or place >= len(counted.lookups) or not counted.lookups[place]:
            return
        left = max(0, counted.lookups[place] - lookups)
        counted.lookups[place] = left
        counted.known -= not left
        if not counted.known:
            del self._crowds[self._blocks.pop(counted.crowd.key)]
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
    entries: Sequence[Entry] | None = None
    error: OcifsError | None = None  # ends the listing after the entries


def _hash(key: Hashable) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
