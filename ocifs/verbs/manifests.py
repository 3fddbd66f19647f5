"""The manifest that a verb is about."""

from __future__ import annotations

from ocifs.api import AsyncTree
from ocifs.errors import UsageError
from ocifs.oci.local import LayoutSource
from ocifs.tree.manifest.directory import ManifestDirectory


async def manifest_directory(tree: AsyncTree, path: str = "") -> ManifestDirectory:
    """The directory of the manifest at a path, which is the root of a tree opened by reference.

    Raises UsageError if the path does not lead to a single manifest, and the errors of a lookup.
    """
    node = await tree.node(path)
    if isinstance(node, ManifestDirectory):
        return node
    if path:
        raise UsageError(f"not a manifest: {path}", hint="name a tag: REPOSITORY:TAG")
    hint = (
        f"add a name: `ocifs tags {tree.source}` lists them"
        if isinstance(tree.source, LayoutSource)
        else "add :TAG or @DIGEST"
    )
    raise UsageError(f"not a single manifest: {tree.source}", hint=hint)
