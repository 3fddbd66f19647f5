"""The interfaces of nodes, for `fuse`, `ocifs.api` and the verbs.

A node is a directory, a file or a symbolic link. The kernel's requests reach nodes through
`ocifs.fuse.operations`; the Python API and the commands reach them through `ocifs.tree.walk`. Both
run in the event loop, so every method here is called from the event loop.

A node holds the little that it needs to answer: the source of its content, and the attributes that
`stat` shows. It is created by a lookup or a listing, and dropped when the kernel forgets it. Two
nodes may exist for one path. They are the same inode if their keys are equal, and the kernel is
given the first of them.

An author of nodes derives from `ocifs.tree.base.SimpleNode` and writes three methods: the
constructor and `lookup` and `entries` for a directory, the constructor and `read` for a file. All
else has a default. `FastPath` is optional: it answers without waiting, and lets the kernel's table
of inodes do without the node. Layer trees need it; most nodes do not.

Rules that hold here:

- Names and link targets are bytes, as the kernel has them.
- A key is an identity. A file named by a digest has a key made from the digest. A directory has one
  parent only, so its key is made from its parent's key and its name.
- Methods raise nothing except `OcifsError`s.
- Creating a node and reading its attributes cause no I/O. Only async methods may wait.
"""

from __future__ import annotations

import copy
import math
import stat
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, TypeGuard, runtime_checkable

from ocifs.errors import OcifsError

FOREVER = math.inf
"""The lifetime of names and attributes below a digest."""


class Attributes(NamedTuple):
    """The fields of `stat`.

    - `mode` has the type and the permissions.
    - `uid` and `gid` of None are the mounting user and group.
    - Times are nanoseconds since the epoch. `ctime_ns` of None is `mtime_ns`.
    """

    mode: int
    size: int = 0
    mtime_ns: int = 0
    nlink: int = 1
    uid: int | None = None
    gid: int | None = None
    rdev: int = 0
    ctime_ns: int | None = None


# Nothing can be written. The mode of a link is always 0777 on Linux (symlink(7)).
DIRECTORY = stat.S_IFDIR | 0o555
FILE = stat.S_IFREG | 0o444
SYMLINK = stat.S_IFLNK | 0o777


class DirectoryEntry(NamedTuple):
    """One name of a directory, and its node."""

    name: bytes
    node: Node


def partial_listing_error(error: OcifsError, entries: Sequence[DirectoryEntry]) -> OcifsError:
    """The error that ends a listing after these entries."""
    # A copy: the original may be cached together with the names that it listed.
    made = copy.copy(error)
    made.listed = tuple(entries)
    return made


def partial_entries(error: OcifsError) -> tuple[DirectoryEntry, ...]:
    """The entries that a listing had before this error ended it."""
    return tuple(entry for entry in error.listed if isinstance(entry, DirectoryEntry))


# A named tuple's own __new__ is a function in Python. These skip it: a listing creates thousands.
make_attributes: Callable[
    [tuple[int, int, int, int, int | None, int | None, int, int | None]], Attributes
] = partial(tuple.__new__, Attributes)
make_entry: Callable[[tuple[bytes, Node]], DirectoryEntry] = partial(tuple.__new__, DirectoryEntry)


class NodeCommon(Protocol):
    """The members that all nodes have."""

    @property
    def key(self) -> Hashable:
        """The identity: equal keys are one inode for the life of a mount."""
        ...

    @property
    def attributes(self) -> Attributes:
        """The fields of `stat`."""
        ...

    @property
    def lifetime(self) -> float:
        """For how many seconds the kernel may cache the name and the attributes."""
        ...

    @property
    def attributes_known(self) -> bool:
        """False while the attributes, and the names of extended attributes, are provisional."""
        ...

    @property
    def fast(self) -> FastPath | None:
        """The answers that need no waiting, if this node has any."""
        ...

    async def restore_attributes(self) -> None:
        """Restore the attributes that an earlier mount cached, if any. No network access."""
        ...

    async def load_attributes(self) -> None:
        """Load the attributes, for a directory that is opened.

        Raises the error that prevents it.
        """
        ...

    def attribute_names(self) -> Sequence[bytes]:
        """The names of the extended attributes."""
        ...

    @property
    def unsupported_attributes(self) -> frozenset[bytes]:
        """Names that no node of this tree has. `ls` requests an unsupported attribute only once."""
        ...

    async def attribute(self, name: bytes) -> bytes:
        """The value of one extended attribute. Raises NoAttribute."""
        ...


@runtime_checkable
class Directory(NodeCommon, Protocol):
    """A directory. `lookup` may find names that `entries` does not list."""

    async def lookup(self, name: bytes) -> Node:
        """The node of a name. Raises NotFound, or the error that prevents an answer."""
        ...

    async def entries(self) -> Sequence[DirectoryEntry]:
        """The entries of a listing, without `.` and `..`, each name once.

        An error may carry the first part of them (`partial_entries`).
        """
        ...


@runtime_checkable
class File(NodeCommon, Protocol):
    """A file. Devices, FIFOs and sockets are files that are never read."""

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes [offset, offset+size), shorter only at the end."""
        ...

    @property
    def changes(self) -> bool:
        """Whether the content may differ at the next open. The kernel then caches none of it."""
        ...

    @property
    def owner_only(self) -> bool:
        """Whether only the mounting user and root may open it, also with --allow-other."""
        ...

    def on_open(self) -> None:
        """Called for each open handle: the cached content must stay until `on_close`."""
        ...

    def on_close(self) -> None:
        """Called when a handle is closed."""
        ...


@runtime_checkable
class Symlink(NodeCommon, Protocol):
    """A symbolic link. A relative target starts at the directory that contains the link.

    The kernel caches the target for each inode, and on some versions as many bytes of it as the
    link's size. So links with equal keys have equal targets, and the size is the target's length.
    """

    @property
    def target(self) -> bytes: ...


Node: TypeAlias = Directory | File | Symlink


class FastPath(Protocol):
    """Answers without waiting, for nodes that are used very often.

    Every method may return None: the caller then awaits the method of the same name without
    `_nowait`. `ocifs.tree.base.FastNode` returns None for all of them.
    """

    @property
    def slot(self) -> InodeSlot | None:
        """The place of the node in a range of inode numbers, if it has one."""
        ...

    def lookup_nowait(self, name: bytes) -> Node | None:
        """`Directory.lookup` from memory."""
        ...

    def entries_nowait(self) -> Sequence[DirectoryEntry] | None:
        """`Directory.entries` from memory."""
        ...

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """`File.read` from memory."""
        ...

    def readahead_nowait(self, limit: int) -> bytes | None:
        """The whole file if it has at most `limit` bytes, all of them are in memory, and a
        sequential reader reads it next.
        """
        ...


class InodeRange(Protocol):
    """Nodes that can be created again from their position, so that none of them must stay in
    memory.
    """

    @property
    def key(self) -> Hashable:
        """The identity: ranges with equal keys have equal nodes at equal positions."""
        ...

    @property
    def size(self) -> int:
        """The number of nodes: positions are smaller."""
        ...

    def node(self, position: int) -> Node:
        """Create the node at a position."""
        ...


class InodeSlot(NamedTuple):
    """The position of a node in a range. A table of inodes stores this instead of the node."""

    inode_range: InodeRange
    position: int


make_slot: Callable[[tuple[InodeRange, int]], InodeSlot] = partial(tuple.__new__, InodeSlot)


# isinstance with a Protocol looks for each of its members, which takes 10 µs. Every kind of node
# has one member that the others do not have. The class is examined, not the instance: a property of
# the instance may read an index.
def is_directory(node: Node) -> TypeGuard[Directory]:
    """Whether a node is a directory."""
    return hasattr(type(node), "lookup")


def is_file(node: Node) -> TypeGuard[File]:
    """Whether a node is a file, or a special file."""
    return hasattr(type(node), "read")


def is_symlink(node: Node) -> TypeGuard[Symlink]:
    """Whether a node is a symbolic link."""
    return hasattr(type(node), "target")
