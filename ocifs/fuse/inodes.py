"""Inodes and handles: which number the kernel has for which node.

Rules that hold here: pure; equal keys are one inode for as long as the kernel knows it; a number is made from its key, so that it is the
same in every mount and whatever was looked up before; a node is dropped when the kernel has forgotten it as often as it was told of it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, NewType, TypeVar

from ocifs.tree.node import Directory, Entry, Node

Inode = NewType("Inode", int)
Handle = NewType("Handle", int)
ROOT = Inode(1)

_FIRST_FREE = 16  # below it are the root's number and, in some tools, numbers with a meaning
_MASK = (1 << 63) - 1  # an inode is unsigned, yet some programs keep it in a signed type

T = TypeVar("T")


@dataclass(slots=True)
class _Known:
    """A node that the kernel knows, how often it was told, and the key that it is known by."""

    node: Node
    key: Hashable
    lookups: int = 0


class Inodes:
    """The inodes that the kernel knows of."""

    def __init__(self, root: Directory) -> None:
        self._known: dict[Inode, _Known] = {ROOT: _Known(root, root.key, 1)}
        self._numbers: dict[Hashable, Inode] = {root.key: ROOT}

    def __len__(self) -> int:
        return len(self._known)

    def number(self, node: Node) -> Inode:
        """The inode that a node has, or would have."""
        known = self._numbers.get(node.key)
        if known is not None:
            return known
        candidate = _hash(node.key)
        while candidate < _FIRST_FREE or candidate in self._known:
            candidate = (candidate + 1) & _MASK
        return Inode(candidate)

    def remember(self, node: Node) -> Inode:
        """Count one lookup of a node, which the kernel is told of. The first node of a key is the one that is kept."""
        inode = self.number(node)
        known = self._known.get(inode)
        if known is None:
            known = self._known[inode] = _Known(node, node.key)
            self._numbers[node.key] = inode
        known.lookups += 1
        return inode

    def forget(self, inode: Inode, lookups: int) -> None:
        """The kernel gives back so many lookups."""
        known = self._known.get(inode)
        if known is None or inode == ROOT:
            return
        known.lookups -= lookups
        if known.lookups <= 0:
            del self._known[inode]
            del self._numbers[known.key]

    def node(self, inode: Inode) -> Node | None:
        """The node of an inode that the kernel knows."""
        known = self._known.get(inode)
        return None if known is None else known.node


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
    """A directory that is being listed: a listing is made once and stays as it was while the handle is open."""

    directory: Directory
    pid: int
    entries: Sequence[Entry] | None = None


def _hash(key: Hashable) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") & _MASK
