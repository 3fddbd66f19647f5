"""Directories with names that are known from the start."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from ocifs.errors import NotFound
from ocifs.filenames import mangle, to_bytes
from ocifs.tree.base import FastNode, SimpleNode, TextFile
from ocifs.tree.node import DIRECTORY, Attributes, DirectoryEntry, Node


class StaticDirectory(SimpleNode, FastNode):
    """A directory of given nodes, in the order given."""

    __slots__ = ("_nodes",)

    def __init__(
        self, key: Hashable, nodes: Iterable[tuple[bytes, Node]], mtime_ns: int = 0
    ) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=mtime_ns, nlink=2))
        self._nodes = dict(nodes)

    async def lookup(self, name: bytes) -> Node:
        return self.lookup_nowait(name)

    def lookup_nowait(self, name: bytes) -> Node:
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"no {name.decode(errors='replace')!r} here") from None

    async def entries(self) -> Sequence[DirectoryEntry]:
        return self.entries_nowait()

    def entries_nowait(self) -> Sequence[DirectoryEntry]:
        return [DirectoryEntry(name, node) for name, node in self._nodes.items()]


def annotation_directory(
    key: Hashable, annotations: Mapping[str, str], mtime_ns: int = 0
) -> StaticDirectory:
    """`annotations/`: a file for each annotation, with its exact value."""
    files = ((mangle(to_bytes(name)), to_bytes(value)) for name, value in annotations.items())
    return StaticDirectory(
        key, ((name, TextFile((key, name), value, mtime_ns)) for name, value in files), mtime_ns
    )
