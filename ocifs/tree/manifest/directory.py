"""The directory of a manifest: its exact bytes, and its content as files.

A lookup of a tag or digest creates it (`ocifs.tree.registry.repository`), without a request. The
first use loads the manifest:

    unloaded: `digest` is None; attributes are provisional
       | first lookup, listing, opendir or `load`: reads the manifest and a small config
       v
    loaded: the names are those of `contents.py`, for the life of the node

From then on the directory belongs to one digest. If the tag moves, the next lookup of the tag
creates another directory, and a program inside this one still sees one consistent artifact. All
methods run in the event loop. Two tasks may load it at the same time; the first result stays.

Rules that hold here:

- Only the manifest, and the config for its time and facts, are fetched to list or stat.
- An error leaves the directory unloaded, and the next caller tries again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.errors import NotFound
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.kinds.refine import is_refined
from ocifs.tree.base import SimpleNode
from ocifs.tree.manifest.contents import CONTENTS, fact_attribute, fact_attributes
from ocifs.tree.manifest.index import missing_shortcut_error
from ocifs.tree.manifest.load import (
    LoadedManifest,
    ManifestLocation,
    facts,
    identify,
    load_manifest,
)
from ocifs.tree.manifest.provider import Parent
from ocifs.tree.manifest.referrers import FoundReferrers, find_referrers
from ocifs.tree.node import DIRECTORY, FOREVER, Attributes, DirectoryEntry, Node


class ManifestDirectory(SimpleNode):
    """The directory of one manifest."""

    __slots__ = ("_loaded", "_location", "_nodes", "attributes_known", "lifetime")

    def __init__(
        self, location: ManifestLocation, key: Hashable, *, lifetime: float = FOREVER
    ) -> None:
        # The time of change is the same before and after loading: GNU tar compares it.
        super().__init__(key, Attributes(DIRECTORY, nlink=2, ctime_ns=0))
        self.lifetime = lifetime
        self.attributes_known = False
        self._location = location
        self._loaded: LoadedManifest | None = None
        self._nodes: dict[bytes, Node] = {}

    @property
    def digest(self) -> Digest | None:
        """The digest of its manifest, or None before it is loaded."""
        return self._loaded.manifest.digest if self._loaded else None

    @property
    def location(self) -> ManifestLocation:
        """The location of its manifest."""
        return self._location

    async def load_attributes(self) -> None:
        await self.load()

    async def load(self) -> LoadedManifest:
        """Load the manifest, unless it is loaded. Raises NotFound, Unreachable and the like."""
        if self._loaded is None:
            loaded = await load_manifest(self._location)
            # Another task may have loaded it meanwhile, and its nodes may be in use.
            if self._loaded is None:
                self._apply(loaded)
        assert self._loaded is not None
        return self._loaded

    def _apply(self, loaded: LoadedManifest) -> None:
        location = self._location
        location.context.record_siblings(location.repository, loaded.manifest)
        if isinstance(location.version, str):
            location.context.record_tag(location.repository, location.version, loaded.manifest)
        for provider in CONTENTS:
            self._nodes.update(provider(Parent(location, loaded, self.key)))
        self.attributes = self.attributes._replace(mtime_ns=loaded.mtime_ns)
        self.attributes_known = True
        # This is set last, so a provider that fails leaves the directory unloaded.
        self._loaded = loaded

    async def classification(self) -> Classification:
        """The kind of artifact. Reads the config only if the manifest does not decide the kind."""
        if self._loaded is None:
            _, found = await identify(self._location)
            if not is_refined(found):
                return found
        return (await self.load()).classification

    async def kind(self) -> str:
        """The name of the kind of artifact."""
        return (await self.classification()).kind

    async def referrers(self) -> FoundReferrers:
        """The referrers of the manifest, as kinds and digests."""
        return await find_referrers(self._location, (await self.load()).manifest.digest)

    async def lookup(self, name: bytes) -> Node:
        loaded = await self.load()
        try:
            return self._nodes[name]
        except KeyError:
            hint = missing_shortcut_error(name, self._location, loaded.manifest)
            raise hint or NotFound(
                f"no {name.decode(errors='replace')!r} in the directory of a manifest"
            ) from None

    async def entries(self) -> Sequence[DirectoryEntry]:
        await self.load()
        return [DirectoryEntry(name, node) for name, node in self._nodes.items()]

    def attribute_names(self) -> Sequence[bytes]:
        return fact_attributes()

    async def attribute(self, name: bytes) -> bytes:
        # Checked first: `ls -l` asks for names that do not exist, which must not load the manifest.
        if name not in fact_attributes():
            return fact_attribute({}, name)
        return fact_attribute(facts(await self.load()), name)
