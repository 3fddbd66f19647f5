"""A mount of one manifest: its directory, with room below it for the manifests that it refers to.

Rules that hold here: it is bound when the mount is made, so that a reference that does not exist is an error of the command.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.oci.digest import Digest
from ocifs.tree.context import Context
from ocifs.tree.manifest import ManifestDirectory, Whereabouts
from ocifs.tree.node import Directory, Entry, Node
from ocifs.tree.repository import ManifestsDirectory

SIBLINGS = b"_manifests"


class SingleManifest(ManifestDirectory):
    """The directory of the one manifest that is mounted; `_manifests` is entered by name."""

    __slots__ = ("_siblings",)

    def __init__(self, context: Context, repository: str, version: str | Digest) -> None:
        super().__init__(Whereabouts(context, repository, version, SIBLINGS), ("single", str(version)))
        self._siblings = ManifestsDirectory(context, repository, (self.key, SIBLINGS))

    async def lookup(self, name: bytes) -> Node:
        return self._siblings if name == SIBLINGS else await super().lookup(name)

    async def entries(self) -> Sequence[Entry]:
        return [*await super().entries(), Entry(SIBLINGS, self._siblings)]


async def open_single(context: Context, repository: str, version: str | Digest) -> Directory:
    """The directory of one manifest, already bound. Raises NotFound where there is no such manifest."""
    directory = SingleManifest(context, repository, version)
    await directory.bind()
    return directory
