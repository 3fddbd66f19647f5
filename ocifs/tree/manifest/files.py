"""`files/`: the payload of an artifact, under its publisher's file names.

Rules that hold here:

- A file is its blob, read lazily and in ranges. A file that was split into blobs is one file.
- Names are those of `oci.kinds.payload`, mangled and made unique.
- The only file of an archive is shown as a file if the manifest records its size (ModelPack).
- A directory that was packed as an archive is shown as a directory, like `layers/N/tree`. The
  archive is read when the directory is opened.
- A listing causes no request, except for sizes that no descriptor records.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress

from ocifs.errors import Malformed, NotFound
from ocifs.filenames import components, split_path, to_bytes, unique_paths
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.kinds.payload import PayloadFile, payload_files
from ocifs.tree.base import SimpleNode, TextFile
from ocifs.tree.blob import BlobFile, JoinedFile, with_known_size
from ocifs.tree.manifest.load import LoadedManifest, ManifestLocation
from ocifs.tree.manifest.rootfs import image_name
from ocifs.tree.node import DIRECTORY, FILE, Attributes, Directory, DirectoryEntry, File, Node
from ocifs.tree.rootfs.root import LayerStack, open_layer_tree
from ocifs.tree.static import StaticDirectory

PayloadTree = dict[bytes, "Node | PayloadTree"]


class FilesDirectory(SimpleNode):
    """The payload of one manifest."""

    __slots__ = ("_image", "_location", "_payload", "_root")

    def __init__(self, location: ManifestLocation, loaded: LoadedManifest, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, mtime_ns=loaded.mtime_ns, nlink=2))
        self._location = location
        self._image = image_name(location, loaded)
        self._payload = payload_files(loaded.manifest, loaded.classification, loaded.config)
        self._root: Directory | None = None

    async def lookup(self, name: bytes) -> Node:
        return await (await self._open()).lookup(name)

    async def entries(self) -> Sequence[DirectoryEntry]:
        return await (await self._open()).entries()

    async def _open(self) -> Directory:
        if self._root is None and self._is_one_directory():
            self._root = self._open_archive((), self._payload[0])
        if self._root is None:
            tree: PayloadTree = {}
            for path, item in zip(payload_paths(self._payload), self._payload, strict=True):
                _put(tree, path, await self._node(path, item))
            self._root = _directory(self.key, tree, self.attributes.mtime_ns)
        return self._root

    def _is_one_directory(self) -> bool:
        """Whether the payload is one archive without a name of its own. Then `files` is its
        content.
        """
        return (
            len(self._payload) == 1
            and self._payload[0].unpack
            and not split_path(self._payload[0].path)
        )

    async def _node(self, path: tuple[bytes, ...], item: PayloadFile) -> Node:
        if not item.unpack:
            return await self._file(item)
        archive = self._open_archive(path, item)
        if item.member_size == UNKNOWN_SIZE:
            return archive
        return PackedFile(archive, path, item.member_size, self.attributes.mtime_ns)

    async def _file(self, item: PayloadFile) -> Node:
        mtime_ns = self.attributes.mtime_ns
        if not item.parts:
            return TextFile((self.key, "text", item.path), to_bytes(item.text), mtime_ns)
        reader = self._location.context.origin.blobs
        blobs = [await with_known_size(reader, self._location.blob(part)) for part in item.parts]
        files = [BlobFile(reader, blob, item.parts[0].media_type, mtime_ns) for blob in blobs]
        return files[0] if len(files) == 1 else JoinedFile(files, mtime_ns)

    def _open_archive(self, path: tuple[bytes, ...], item: PayloadFile) -> Directory:
        """The content of an archive.

        Some tools write the path of the directory into the archive (ORAS), others do not (Flux).
        The path is shown once in both cases.
        """
        stack = LayerStack(
            self._location.repository,
            item.parts,
            (item.uncompressed_digest,),
            # An archive is not a layer: names that begin with `.wh.` are ordinary files.
            markers=False,
            alone=True,
            within=components(item.path),
            image=self._image,
            mtime_ns=self.attributes.mtime_ns,
        )
        context = self._location.context
        return open_layer_tree(context.layer_service, stack, context.view, (self.key, path))


class PackedFile(SimpleNode):
    """The only file in an archive, if the manifest records its size.

    The archive is read when the file is first read. A file of another size is an error, since the
    size was shown before.
    """

    __slots__ = ("_archive", "_file", "_path")

    def __init__(
        self, archive: Directory, path: tuple[bytes, ...], size: int, mtime_ns: int
    ) -> None:
        super().__init__(("packed", archive.key), Attributes(FILE, size, mtime_ns))
        self._archive = archive
        self._path = path
        self._file: File | None = None

    async def read(self, offset: int, size: int) -> bytes:
        if self._file is None:
            self._file = await self._open()
        return await self._file.read(offset, size)

    async def _open(self) -> File:
        node: Node = self._archive
        # The archive has the path of the file, or only its name.
        for name in self._path:
            if not isinstance(node, Directory):
                break
            with suppress(NotFound):
                node = await node.lookup(name)
        recorded = self.attributes.size
        if not isinstance(node, File):
            text = self._path[-1].decode(errors="replace")
            raise Malformed(f"the archive of {text!r} does not contain that file")
        if node.attributes.size != recorded:
            raise Malformed(
                f"the file has {node.attributes.size} bytes, the manifest records {recorded}"
            )
        return node


def payload_paths(payload: Sequence[PayloadFile]) -> list[tuple[bytes, ...]]:
    """The path of each file of a payload, in its order. A file with the title of the
    directory itself is called `content`.
    """
    return unique_paths([split_path(item.path) or (b"content",) for item in payload])


def _put(tree: PayloadTree, path: tuple[bytes, ...], file: Node) -> None:
    for component in path[:-1]:
        inner = tree.setdefault(component, {})
        # unique_paths gives no file the path of a directory.
        assert isinstance(inner, dict)
        tree = inner
    tree[path[-1]] = file


def _directory(key: Hashable, tree: PayloadTree, mtime_ns: int) -> StaticDirectory:
    nodes = (
        (name, _directory((key, name), node, mtime_ns) if isinstance(node, dict) else node)
        for name, node in sorted(tree.items())
    )
    return StaticDirectory(key, nodes, mtime_ns)
