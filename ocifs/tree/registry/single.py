"""A mount of one manifest: its directory, with the manifests and blobs that it refers to below it.

Rules that hold here: the manifest is loaded before mounting. A reference or view that does not
exist is an error of the command.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.errors import NotFound, UsageError
from ocifs.oci.digest import Digest
from ocifs.tree.manifest.context import Context
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.manifest.load import ManifestLocation
from ocifs.tree.manifest.platforms import platform_note
from ocifs.tree.node import Directory, DirectoryEntry, Node
from ocifs.tree.registry.repository import BlobsDirectory, ManifestsDirectory, TagsDirectory
from ocifs.tree.walk import walk

SIBLINGS = b"_manifests"
BLOBS = b"_blobs"
TAGS = b"_tags"
# The view that shows the manifest's directory.
WHOLE = "manifest"


class SingleManifest(ManifestDirectory):
    """The directory of the one manifest that is mounted; `_manifests` and `_blobs` are entered by
    name.
    """

    __slots__ = ("_controls", "lists_tags")

    def __init__(
        self, context: Context, repository: str, version: str | Digest, *, tags: bool = False
    ) -> None:
        """With `tags`, the directory also lists the tags of the source."""
        super().__init__(
            ManifestLocation(context, repository, version, SIBLINGS, BLOBS),
            ("single", str(version)),
        )
        self._controls: dict[bytes, Node] = {
            SIBLINGS: ManifestsDirectory(context, repository, (self.key, SIBLINGS)),
            BLOBS: BlobsDirectory(context, repository, (self.key, BLOBS)),
        }
        self.lists_tags = tags
        if tags:
            self._controls[TAGS] = TagsDirectory(context, repository, (self.key, TAGS))

    async def lookup(self, name: bytes) -> Node:
        return self._controls.get(name) or await super().lookup(name)

    async def entries(self) -> Sequence[DirectoryEntry]:
        return [
            *await super().entries(),
            *(DirectoryEntry(name, room) for name, room in self._controls.items()),
        ]


async def open_single(
    context: Context, repository: str, version: str | Digest, *, tags: bool = False
) -> Directory:
    """The loaded directory of one manifest, or with another view its root filesystem or payload.

    Raises NotFound if the manifest does not exist, and UsageError if it has no such view.
    """
    directory = SingleManifest(context, repository, version, tags=tags)
    note = platform_note(await directory.load(), context.view.platform)
    if note:
        context.report(note)
    view = context.view.view
    if view == WHOLE:
        return directory
    try:
        shown = await walk(directory, view.encode())
    except NotFound as error:
        # A hint already contains an alternative.
        if error.hint:
            raise UsageError(str(error), hint=error.hint) from None
        kind = (await directory.attribute(b"user.oci.kind")).decode()
        raise UsageError(
            f"an artifact of the kind {kind} has no {view}/", hint="mount it without --view"
        ) from None
    assert isinstance(shown, Directory)
    return shown
