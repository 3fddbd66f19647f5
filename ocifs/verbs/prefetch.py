"""Fetch the files below paths of a source into the cache, so that a mount finds them there.

Runs in the event loop of an AsyncTree.

- Files are fetched side by side, AT_A_TIME of them. The store divides the connections of the host
  among them.
- Symbolic links in a path are followed, links below it are not.
- Cached bytes are not fetched again, so an interrupted prefetch continues where it ended.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.api import AsyncTree
from ocifs.errors import NotFound
from ocifs.settings import MIB
from ocifs.tree.blob import read_toward_end
from ocifs.tree.node import Directory, File, Node
from ocifs.verbs.progress import Progress
from ocifs.verbs.side_by_side import side_by_side

_PIECE = 4 * MIB  # read at once
_LAYERS, _ROOTFS = "layers", "rootfs"


async def prefetch_paths(
    tree: AsyncTree, paths: Sequence[str] = (), progress: Progress | None = None
) -> int:
    """Fetch everything at and below each path, and return the number of bytes.

    Without paths the tree must be of one manifest: all of its layers are fetched, and those of an
    image are unpacked and indexed. Raises NotFound for a path that does not exist.
    """
    progress = progress or Progress()
    progress.item = "file" if paths else "layer"
    progress.begin("listing")
    files: dict[Hashable, File] = {}
    if paths:
        for path in paths:
            await _collect(tree, await tree.node(path), files)
    else:
        await _collect_layers(tree, files)
    progress.begin("")
    size = await _fetch(tree, list(files.values()), progress)
    if not paths:
        progress.begin("unpacking")
        await _unpack(tree)
        progress.begin("")
    return size


async def _collect(tree: AsyncTree, node: Node, files: dict[Hashable, File]) -> None:
    """Add every file below a node, once however many names it has."""
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, Directory):
            with tree.deadline():
                # In the order of the listing, which is about that of the tar: one request then
                # fetches many small files.
                pending += [entry.node for entry in await current.entries()][::-1]
        elif isinstance(current, File):
            files[current.key] = current


async def _collect_layers(tree: AsyncTree, files: dict[Hashable, File]) -> None:
    try:
        layers = await tree.node(_LAYERS)
    except NotFound:
        raise NotFound(
            f"no layers in {tree.source}",
            hint="name one manifest (REGISTRY/REPOSITORY:TAG), or a PATH",
        ) from None
    if isinstance(layers, Directory):
        with tree.deadline():
            names = [entry.name.decode() for entry in await layers.entries()]
        for name in names:
            await _collect(tree, await tree.node(f"{_LAYERS}/{name}/blob"), files)


async def _fetch(tree: AsyncTree, files: Sequence[File], progress: Progress) -> int:
    progress.expect(sum(file.attributes.size for file in files), len(files))

    async def fetch(file: File) -> None:
        offset = 0
        while offset < file.attributes.size:
            with tree.deadline():
                chunk = await read_toward_end(file, offset, _PIECE)
            if not chunk:
                break
            offset += len(chunk)
            progress.advance(len(chunk))
        progress.finish_item()

    await side_by_side(fetch, files)
    return progress.done


async def _unpack(tree: AsyncTree) -> None:
    """List the root filesystem of an image, so that its layers are unpacked and indexed."""
    try:
        rootfs = await tree.node(_ROOTFS)
    except NotFound:
        return
    if isinstance(rootfs, Directory):
        with tree.deadline():
            await rootfs.entries()
