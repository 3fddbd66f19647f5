"""A mount of one manifest: its directory, with room below it for the manifests and blobs that it
refers to.

Rules that hold here: it is bound when the mount is made, so that a reference that does not exist is
an error of the command, and so is a view that it does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.errors import NotFound, UsageError
from ocifs.oci.digest import Digest
from ocifs.tree.manifest.context import Context
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.manifest.load import ManifestLocation
from ocifs.tree.node import Directory, DirectoryEntry, Node
from ocifs.tree.registry.repository import BlobsDirectory, ManifestsDirectory, TagsDirectory
from ocifs.tree.walk import walk

SIBLINGS = b"_manifests"
BLOBS = b"_blobs"
TAGS = b"_tags"
WHOLE = "manifest"  # the view that is the manifest's directory


class SingleManifest(ManifestDirectory):
    """The directory of the one manifest that is mounted; `_manifests` and `_blobs` are entered by
    name.
    """

    __slots__ = ("_controls", "lists_tags")

    def __init__(
        self, context: Context, repository: str, version: str | Digest, *, tags: bool = False
    ) -> None:
        """With `tags` it stands for the whole source, whose tags are listed in it."""
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
    """The directory of one manifest, already bound, or with another view its root filesystem or
    payload.

    Raises NotFound where there is no such manifest, UsageError where it has no such view.
    """
    directory = SingleManifest(context, repository, version, tags=tags)
    await directory.load()
    view = context.view.view
    if view == WHOLE:
        return directory
    try:
        shown = await walk(directory, view.encode())
    except NotFound as error:
        if error.hint:  # which says what to try instead
            raise UsageError(str(error), hint=error.hint) from None
        kind = (await directory.attribute(b"user.oci.kind")).decode()
        raise UsageError(
            f"this is of the kind {kind}, which has no {view}/", hint="mount it without --view"
        ) from None
    assert isinstance(shown, Directory)
    return shown
