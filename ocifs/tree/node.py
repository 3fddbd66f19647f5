"""Nodes: what a path leads to.

A directory, a file or a symbolic link, as the tree room gives them to whoever serves them.

Rules that hold here: names and link targets are bytes, as the kernel has them; a node's `key` is
its identity: two nodes with equal keys are one inode, so a file under a digest has a key made from
the digest, and a directory, which can have one parent only, a key made from its parent's and its
name; methods raise nothing but `OcifsError`s; nothing is asked of the world to make a node or to
read its attributes, only by the methods that are async; what these would give without waiting,
those in `at_hand` may give at once.
"""

from __future__ import annotations

import copy
import math
import stat
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, TypeGuard, runtime_checkable

from ocifs.errors import NoAttribute, OcifsError

FOREVER = math.inf
"""The lifetime of what a digest names."""


class Attributes(NamedTuple):
    """What stat shows.

    `mode` has type and permissions; `uid` and `gid` of None mean the mounting user; times in
    nanoseconds.

    `ctime_ns` of None is `mtime_ns`.
    """

    mode: int
    size: int = 0
    mtime_ns: int = 0
    nlink: int = 1
    uid: int | None = None
    gid: int | None = None
    rdev: int = 0
    ctime_ns: int | None = None


DIRECTORY = stat.S_IFDIR | 0o555
FILE = stat.S_IFREG | 0o444
SYMLINK = stat.S_IFLNK | 0o777


class DirectoryEntry(NamedTuple):
    """One name of a directory and what it leads to."""

    name: bytes
    node: Node


def partial_listing_error(error: OcifsError, entries: Sequence[DirectoryEntry]) -> OcifsError:
    """The error that ends a listing after these entries."""
    made = copy.copy(error)  # the original may be remembered, with what it listed
    made.listed = tuple(entries)
    return made


def partial_entries(error: OcifsError) -> tuple[DirectoryEntry, ...]:
    """The entries that a listing had before this error ended it."""
    return tuple(each for each in error.listed if isinstance(each, DirectoryEntry))


# As named tuples make themselves, without a call of Python's for each.
make_attributes: Callable[
    [tuple[int, int, int, int, int | None, int | None, int, int | None]], Attributes
] = partial(tuple.__new__, Attributes)
make_entry: Callable[[tuple[bytes, Node]], DirectoryEntry] = partial(tuple.__new__, DirectoryEntry)


class NodeCommon(Protocol):
    @property
    def key(self) -> Hashable:
        """Identity: equal keys are one inode for the life of a mount."""
        ...

    @property
    def attributes(self) -> Attributes:
        """What stat shows."""
        ...

    @property
    def lifetime(self) -> float:
        """For how many seconds the kernel may believe that this name leads here: FOREVER under a
        digest.
        """
        ...

    @property
    def attributes_known(self) -> bool:
        """Whether its attributes, and what extended attributes it has, are known, and no guess."""
        ...

    async def restore_attributes(self) -> None:
        """Know them by what was kept of an earlier look, if it was. Fetches nothing."""
        ...

    async def load_attributes(self) -> None:
        """Know them, for somebody who opens it. Raises whatever keeps them from being known."""
        ...

    def attribute_names(self) -> Sequence[bytes]:
        """The names of the extended attributes."""
        ...

    async def attribute(self, name: bytes) -> bytes:
        """One extended attribute. Raises NoAttribute."""
        ...


@runtime_checkable
class Directory(NodeCommon, Protocol):
    """Something with names in it. `lookup` may know names that `entries` does not list."""

    async def lookup(self, name: bytes) -> Node:
        """What a name leads to. Raises NotFound, and whatever keeps it from being known."""
        ...

    def lookup_nowait(self, name: bytes) -> Node | None:
        """The same where nobody has to be waited for; None: `lookup` is to be asked."""
        ...

    async def entries(self) -> Sequence[DirectoryEntry]:
        """What a listing shows, without `.` and `..`, each name once.

        An error may carry a part of it (`entries_before`).
        """
        ...

    def entries_nowait(self) -> Sequence[DirectoryEntry] | None:
        """The same where nobody has to be waited for; None: `entries` is to be asked."""
        ...


@runtime_checkable
class File(NodeCommon, Protocol):
    """Bytes. Special files (devices, FIFOs, sockets) are Files too, which nobody reads."""

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes [offset, offset+size), shorter only at the end."""
        ...

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """The same where nobody has to be waited for; None: `read` is to be asked."""
        ...

    def readahead_nowait(self, most: int) -> bytes | None:
        """All of it where that is at hand, no more than `most` bytes, and what somebody who reads
        file after file reads next; else None.
        """
        ...

    @property
    def changes(self) -> bool:
        """Whether the content may differ at the next open (then nothing of it is kept by the
        kernel).
        """
        ...

    def on_open(self) -> None:
        """Somebody has it open from now on: what is here of it is to stay."""
        ...

    def on_close(self) -> None:
        """Somebody who had it open has not any more."""
        ...


@runtime_checkable
class Symlink(NodeCommon, Protocol):
    """A name for another path, relative to the directory that it stands in."""

    @property
    def target(self) -> bytes: ...


Node: TypeAlias = Directory | File | Symlink


# isinstance looks for every attribute of a Protocol, which takes 10 µs. Each kind has one that no
# other has; the class is asked, since an attribute of the node may be a property that reads an
# index.
def is_directory(node: Node) -> TypeGuard[Directory]:
    """Whether a node is a directory."""
    return hasattr(type(node), "lookup")


def is_file(node: Node) -> TypeGuard[File]:
    """Whether a node is a file, special ones too."""
    return hasattr(type(node), "read")


def is_symlink(node: Node) -> TypeGuard[Symlink]:
    """Whether a node is a symbolic link."""
    return hasattr(type(node), "target")


class InodeRange(Protocol):
    """Very many nodes that are made again whenever they are asked for, so that nobody needs to keep
    them.
    """

    @property
    def key(self) -> Hashable:
        """Identity: crowds with equal keys have equal nodes at equal places."""
        ...

    @property
    def size(self) -> int:
        """Places are from 0 to this, without it."""
        ...

    def node(self, place: int) -> Node:
        """The node at a place."""
        ...


class InodeSlot(NamedTuple):
    """Where a node stands in its crowd. Who knows this need not keep the node."""

    inode_range: InodeRange
    place: int


make_slot: Callable[[tuple[InodeRange, int]], InodeSlot] = partial(tuple.__new__, InodeSlot)


class NodeBase:
    """Base of nodes without extended attributes that are known from the first, live for ever and
    have nothing at hand.
    """

    __slots__ = ()
    lifetime: float = FOREVER
    attributes_known: bool = True
    slot: InodeSlot | None = None

    async def restore_attributes(self) -> None:
        """All is known."""

    async def load_attributes(self) -> None:
        """All is known."""

    def attribute_names(self) -> Sequence[bytes]:
        return ()

    async def attribute(self, name: bytes) -> bytes:
        raise NoAttribute(f"no extended attribute {name!r} here")

    def lookup_nowait(self, name: bytes) -> Node | None:
        return None

    def entries_nowait(self) -> Sequence[DirectoryEntry] | None:
        return None

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        return None

    def readahead_nowait(self, most: int) -> bytes | None:
        return None

    def on_open(self) -> None:
        """Most files have nothing to keep."""

    def on_close(self) -> None:
        """Most files have nothing to keep."""


class SimpleNode(NodeBase):
    """The same: give it a key and attributes."""

    __slots__ = ("attributes", "key")

    def __init__(self, key: Hashable, attributes: Attributes) -> None:
        self.key = key
        self.attributes = attributes


class TextFile(SimpleNode):
    """A small file whose content is at hand."""

    __slots__ = ("_content",)
    changes = False

    def __init__(self, key: Hashable, content: bytes, mtime_ns: int = 0) -> None:
        super().__init__(key, Attributes(FILE, len(content), mtime_ns))
        self._content = content

    async def read(self, offset: int, size: int) -> bytes:
        return self.read_nowait(offset, size)

    def read_nowait(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


class SymlinkNode(SimpleNode):
    """A symbolic link."""

    __slots__ = ("lifetime", "target")

    def __init__(
        self, key: Hashable, target: bytes, *, lifetime: float = FOREVER, mtime_ns: int = 0
    ) -> None:
        super().__init__(key, Attributes(SYMLINK, len(target), mtime_ns))
        self.target = target
        self.lifetime = lifetime
