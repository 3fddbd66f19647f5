"""Base classes of nodes: the default of every member that an author of nodes does not need.

- `SimpleNode`, for nearly all: pass it a key and attributes.
- `NodeBase`, for nodes that compute these.
- `FastNode`, in addition, for nodes that can answer without waiting.
- `WithoutLabels`, in addition and first, for nodes outside of images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.errors import NoAttribute
from ocifs.layers.index.entry import LABELS
from ocifs.tree.node import (
    FILE,
    FOREVER,
    SYMLINK,
    Attributes,
    DirectoryEntry,
    FastPath,
    InodeSlot,
    Node,
)


class NodeBase:
    """A node with final attributes, no extended ones, an unlimited lifetime and no fast path."""

    # Without it every node would have a dictionary, in spite of the slots of its class.
    __slots__ = ()
    lifetime: float = FOREVER
    attributes_known: bool = True
    changes: bool = False
    owner_only: bool = False

    @property
    def fast(self) -> FastPath | None:
        return None

    async def restore_attributes(self) -> None:
        """The attributes are final."""

    async def load_attributes(self) -> None:
        """The attributes are final."""

    @property
    def unsupported_attributes(self) -> frozenset[bytes]:
        return frozenset()

    def attribute_names(self) -> Sequence[bytes]:
        return ()

    async def attribute(self, name: bytes) -> bytes:
        raise NoAttribute(f"no such extended attribute: {name!r}")

    def on_open(self) -> None:
        """Nothing to acquire."""

    def on_close(self) -> None:
        """Nothing to release."""


class SimpleNode(NodeBase):
    """A node with a stored key and stored attributes."""

    __slots__ = ("attributes", "key")

    def __init__(self, key: Hashable, attributes: Attributes) -> None:
        self.key = key
        self.attributes = attributes


class FastNode(NodeBase):
    """A node with a fast path. Override the methods that can answer without waiting."""

    __slots__ = ()
    slot: InodeSlot | None = None

    @property
    def fast(self) -> FastPath:
        return self

    def lookup_nowait(self, name: bytes) -> Node | None:
        return None

    def entries_nowait(self) -> Sequence[DirectoryEntry] | None:
        return None

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        return None

    def readahead_nowait(self, limit: int) -> bytes | None:
        return None


class WithoutLabels(NodeBase):
    """A node outside of images: neither it nor its neighbours have an ACL or a label."""

    __slots__ = ()

    @property
    def unsupported_attributes(self) -> frozenset[bytes]:
        return LABELS


class TextFile(SimpleNode, FastNode):
    """A small file with its content in memory."""

    __slots__ = ("_content",)

    def __init__(self, key: Hashable, content: bytes, mtime_ns: int = 0) -> None:
        super().__init__(key, Attributes(FILE, len(content), mtime_ns))
        self._content = content

    async def read(self, offset: int, size: int) -> bytes:
        return self.read_nowait(offset, size)

    def read_nowait(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


class SymlinkNode(SimpleNode):
    """A symbolic link. Its key contains the target, which the kernel caches for each inode."""

    __slots__ = ("lifetime", "target")

    def __init__(
        self, key: Hashable, target: bytes, *, lifetime: float = FOREVER, mtime_ns: int = 0
    ) -> None:
        # The size of a link is the length of its target (POSIX, sys/stat.h).
        super().__init__((key, target), Attributes(SYMLINK, len(target), mtime_ns))
        self.target = target
        self.lifetime = lifetime
