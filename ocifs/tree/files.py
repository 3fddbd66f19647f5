"""`files/`: what an artifact carries, under the names that a person wants.

Rules that hold here: each file is the blob itself, read lazily and in ranges; names are those of `oci.payload`, made safe and each once;
listing asks nobody, but for the sizes that Docker's schema 1 does not record. An archive of a directory is, for now, the archive.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.content import Blob
from ocifs.oci.payload import PayloadFile
from ocifs.tree.blob import BlobFile, sized
from ocifs.tree.context import Context
from ocifs.tree.names import split_path, unique_paths
from ocifs.tree.node import DIRECTORY, Attributes, Entry, Node, Plain
from ocifs.tree.static import StaticDirectory

Tree = dict[bytes, "BlobFile | Tree"]


class FilesDirectory(Plain):
    """The payload of one manifest."""

    __slots__ = ("_context", "_payload", "_repository", "_root")

    def __init__(
        self, context: Context, repository: str, payload: Sequence[PayloadFile], key: Hashable, mtime_ns: int
    ) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=mtime_ns, nlink=2))
        self._context = context
        self._repository = repository
        self._payload = payload
        self._root: StaticDirectory | None = None

    async def lookup(self, name: bytes) -> Node:
        return await (await self._inside()).lookup(name)

    async def entries(self) -> Sequence[Entry]:
        return await (await self._inside()).entries()

    async def _inside(self) -> StaticDirectory:
        if self._root is None:
            reader, when = self._context.origin.blobs, self.attributes.mtime_ns
            tree: Tree = {}
            for path, item in zip(payload_paths(self._payload), self._payload, strict=True):
                blob = await sized(reader, Blob.of(self._repository, item.descriptor))
                _put(tree, path, BlobFile(reader, blob, item.descriptor.media_type, when))
            self._root = _directory(self.key, tree, when)
        return self._root


def payload_paths(payload: Sequence[PayloadFile]) -> list[tuple[bytes, ...]]:
    """Where each file of a payload is, in its order; one whose title means the directory itself is called `content`."""
    return unique_paths([split_path(item.path) or (b"content",) for item in payload])


def _put(tree: Tree, path: tuple[bytes, ...], file: BlobFile) -> None:
    for component in path[:-1]:
        inner = tree.setdefault(component, {})
        assert isinstance(inner, dict)  # unique_paths keeps files and directories apart
        tree = inner
    tree[path[-1]] = file


def _directory(key: Hashable, tree: Tree, mtime_ns: int) -> StaticDirectory:
    nodes = (
        (name, _directory((key, name), node, mtime_ns) if isinstance(node, dict) else node)
        for name, node in sorted(tree.items())
    )
    return StaticDirectory(key, nodes, mtime_ns)
