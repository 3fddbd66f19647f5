"""A manifest's directory: the bytes that the registry served, and what they say, as files.

It is bound to one manifest at first use and keeps it for its life, so that whoever stands in it
reads one consistent artifact.

Rules that hold here: nothing but the manifest and, for its time, its config is fetched to list or
stat; every link stays inside the mount; what a kind of manifest does not have is not there (an
image has no `platforms`, an index no `layers` of its own).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ocifs.content import Blob
from ocifs.errors import NoAttribute, NotFound
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Form
from ocifs.oci.mediatype import is_json
from ocifs.tree.base import SimpleNode, SymlinkNode, TextFile
from ocifs.tree.blob import BlobFile
from ocifs.tree.manifest.files import FilesDirectory
from ocifs.tree.manifest.index import index_links, missing_shortcut_error
from ocifs.tree.manifest.layers import LayersDirectory
from ocifs.tree.manifest.load import (
    LoadedManifest,
    ManifestLocation,
    facts,
    identify,
    load_manifest,
)
from ocifs.tree.manifest.referrers import Found, ReferrersDirectory, find_referrers
from ocifs.tree.manifest.rootfs import open_rootfs
from ocifs.tree.manifest.summary import summarise
from ocifs.tree.names import to_bytes
from ocifs.tree.node import DIRECTORY, FOREVER, Attributes, DirectoryEntry, Node
from ocifs.tree.static import annotation_directory

ATTRIBUTES = ("digest", "media-type", "artifact-type", "kind")


class ManifestDirectory(SimpleNode):
    """The directory of one manifest."""

    __slots__ = ("_loaded", "_location", "_nodes", "attributes_known", "lifetime")

    def __init__(
        self, location: ManifestLocation, key: Hashable, *, lifetime: float = FOREVER
    ) -> None:
        super().__init__(
            key, Attributes(DIRECTORY, nlink=2, ctime_ns=0)
        )  # which is so when the rest is known, too
        self.lifetime = lifetime
        self.attributes_known = False
        self._location = location
        self._loaded: LoadedManifest | None = None
        self._nodes: dict[bytes, Node] = {}

    @property
    def digest(self) -> Digest | None:
        """The digest that it is bound to, or None before its first use."""
        return self._loaded.manifest.digest if self._loaded else None

    async def load_attributes(self) -> None:
        await self.load()

    @property
    def location(self) -> ManifestLocation:
        """Where its manifest is."""
        return self._location

    async def load(self) -> LoadedManifest:
        """Read the manifest, unless that was done.

        Raises NotFound and whatever keeps it from being known.
        """
        if self._loaded is None:
            loaded = await load_manifest(self._location)
            if (
                self._loaded is None
            ):  # another task may have been faster, and its answer is the one that was given away
                self._loaded = loaded
                location = self._location
                location.context.record_siblings(location.repository, loaded.manifest)
                if isinstance(location.version, str):
                    location.context.record_tag(
                        location.repository, location.version, loaded.manifest
                    )
                self._nodes = dict(manifest_nodes(self._location, loaded, self.key))
                self.attributes = self.attributes._replace(mtime_ns=loaded.mtime_ns)
                self.attributes_known = True
        return self._loaded

    async def kind(self) -> str:
        """The kind alone, without what else binding asks for."""
        return (
            self._loaded.classification if self._loaded else (await identify(self._location))[1]
        ).kind

    async def referrers(self) -> Found:
        """What refers to the manifest, as kinds and digests, for callers that want all of it at
        once.
        """
        return await find_referrers(self._location, (await self.load()).manifest.digest)

    async def lookup(self, name: bytes) -> Node:
        loaded = await self.load()
        try:
            return self._nodes[name]
        except KeyError:
            why = missing_shortcut_error(name, self._location, loaded.manifest)
            raise why or NotFound(
                f"a manifest's directory has no {name.decode(errors='replace')!r}"
            ) from None

    async def entries(self) -> Sequence[DirectoryEntry]:
        await self.load()
        return [DirectoryEntry(name, node) for name, node in self._nodes.items()]

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(f"user.oci.{name}".encode() for name in ATTRIBUTES)

    async def attribute(self, name: bytes) -> bytes:
        if name not in self.attribute_names():
            raise NoAttribute(f"no such extended attribute: {name!r}")
        return to_bytes(facts(await self.load())[name.removeprefix(b"user.oci.").decode()])


def manifest_nodes(
    location: ManifestLocation, loaded: LoadedManifest, key: Hashable
) -> Iterable[tuple[bytes, Node]]:
    """Everything that a manifest's directory has, by name."""
    manifest, mtime_ns = loaded.manifest, loaded.mtime_ns
    yield b"manifest.json", ManifestFile(location, loaded)

    def text(name: str, content: str) -> tuple[bytes, Node]:
        return name.encode(), TextFile(
            ("fact", str(manifest.digest), name, content), to_bytes(content), mtime_ns
        )

    for name, value in facts(loaded).items():
        yield text(name, f"{value}\n" if value else "")
    yield text("size", f"{len(manifest.raw)}\n")
    yield text("summary.txt", summarise(manifest, loaded.classification, loaded.config))
    if manifest.form is Form.UNKNOWN:
        return
    yield (
        b"annotations",
        annotation_directory((key, b"annotations"), manifest.annotations, mtime_ns),
    )
    if manifest.config is not None:
        if manifest.config.size != UNKNOWN_SIZE:  # else there is no telling how long the file is
            name = "config.json" if is_json(manifest.config.media_type) else "config"
            blob = location.blob(manifest.config)
            yield (
                name.encode(),
                BlobFile(location.context.origin.blobs, blob, manifest.config.media_type, mtime_ns),
            )
        yield text("config.media-type", f"{manifest.config.media_type}\n")
        yield text("config.digest", f"{manifest.config.digest}\n")
    if manifest.form is Form.INDEX:
        yield from index_links(location, loaded, key)
    else:
        yield b"layers", LayersDirectory(location, loaded, (key, b"layers"))
        if loaded.classification.kind in ("image", "docker-schema1"):
            yield b"rootfs", open_rootfs(location, loaded, (key, b"rootfs"))
        yield b"files", FilesDirectory(location, loaded, (key, b"files"))
    yield b"referrers", ReferrersDirectory(location, manifest.digest, (key, b"referrers"))
    if manifest.subject is not None:
        yield (
            b"subject",
            SymlinkNode(
                (key, b"subject"), location.siblings + b"/" + str(manifest.subject.digest).encode()
            ),
        )


class ManifestFile(BlobFile):
    """`manifest.json`: the bytes as they were served, and the same extended attributes as the
    directory's.
    """

    __slots__ = ("_facts", "_raw")

    def __init__(self, location: ManifestLocation, loaded: LoadedManifest) -> None:
        manifest = loaded.manifest
        blob = Blob(location.repository, manifest.digest, len(manifest.raw), manifest.raw)
        super().__init__(location.context.origin.blobs, blob, manifest.media_type, loaded.mtime_ns)
        self.key = ("manifest", str(manifest.digest))
        self._facts = facts(loaded)
        self._raw = manifest.raw

    async def read(self, offset: int, size: int) -> bytes:
        return self._raw[offset : offset + size]

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(f"user.oci.{name}".encode() for name in ATTRIBUTES)

    async def attribute(self, name: bytes) -> bytes:
        if name not in self.attribute_names():
            raise NoAttribute(f"no such extended attribute: {name!r}")
        return to_bytes(self._facts[name.removeprefix(b"user.oci.").decode()])
