"""A manifest's directory: the bytes that the registry served, and what they say, as files.

It is bound to one manifest at first use and keeps it for its life, so that whoever stands in it reads one consistent artifact.

Rules that hold here: nothing but the manifest and, for its time, its config is fetched to list or stat; every link stays inside the mount;
what a kind of manifest does not have is not there (an image has no `platforms`, an index no `layers` of its own).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from ocifs.content import Blob
from ocifs.errors import NoAttribute, NotFound, OcifsError
from ocifs.oci.artifact import Classification, classify
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Form, Manifest, parse_manifest
from ocifs.oci.mediatype import is_json
from ocifs.oci.payload import payload_files
from ocifs.tree.blob import BlobFile
from ocifs.tree.context import Context
from ocifs.tree.files import FilesDirectory
from ocifs.tree.index import index_links
from ocifs.tree.layers import LayersDirectory
from ocifs.tree.names import to_bytes
from ocifs.tree.node import DIRECTORY, FOREVER, Attributes, Entry, Link, Node, Plain, TextFile
from ocifs.tree.referrers import ReferrersDirectory
from ocifs.tree.rootfs import open_rootfs
from ocifs.tree.static import annotation_directory
from ocifs.tree.summary import summarise
from ocifs.tree.times import created_ns

ATTRIBUTES = ("digest", "media-type", "artifact-type", "kind")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a manifest is: by which tag or digest of which repository.

    `siblings` leads from its directory to the one that has other manifests of the repository by their digests.
    """

    context: Context
    repository: str
    version: str | Digest
    siblings: bytes = b".."
    descriptor_type: str = ""

    def blob(self, descriptor: Descriptor) -> Blob:
        return Blob.of(self.repository, descriptor)


@dataclass(frozen=True, slots=True)
class Bound:
    """A manifest that was read: what it says, what it is, its config where that was read, and its time."""

    manifest: Manifest
    classification: Classification
    config: bytes | None
    mtime_ns: int


class ManifestDirectory(Plain):
    """The directory of one manifest."""

    __slots__ = ("_bound", "_nodes", "_where", "lifetime")

    def __init__(self, where: Whereabouts, key: Hashable, *, lifetime: float = FOREVER) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self.lifetime = lifetime
        self._where = where
        self._bound: Bound | None = None
        self._nodes: dict[bytes, Node] = {}

    @property
    def digest(self) -> Digest | None:
        """The digest that it is bound to, or None before its first use."""
        return self._bound.manifest.digest if self._bound else None

    async def bind(self) -> Bound:
        """Read the manifest, unless that was done. Raises NotFound and whatever keeps it from being known."""
        if self._bound is None:
            bound = await load(self._where)
            if self._bound is None:  # another task may have been faster, and its answer is the one that was given away
                self._bound = bound
                self._nodes = dict(manifest_nodes(self._where, bound, self.key))
                self.attributes = replace(self.attributes, mtime_ns=bound.mtime_ns)
        return self._bound

    async def lookup(self, name: bytes) -> Node:
        await self.bind()
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"a manifest's directory has no {name.decode(errors='replace')!r}") from None

    async def entries(self) -> Sequence[Entry]:
        await self.bind()
        return [Entry(name, node) for name, node in self._nodes.items()]

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(f"user.oci.{name}".encode() for name in ATTRIBUTES)

    async def attribute(self, name: bytes) -> bytes:
        if name not in self.attribute_names():
            raise NoAttribute(f"a manifest has no extended attribute {name!r}")
        return to_bytes(facts(await self.bind())[name.removeprefix(b"user.oci.").decode()])


async def load(where: Whereabouts) -> Bound:
    """Read and understand a manifest."""
    catalog, version = where.context.origin.catalog, where.version
    descriptor_type = where.descriptor_type
    tag = ""
    if isinstance(version, str):
        tag = version
        resolved = await catalog.resolve(where.repository, version)
        version, descriptor_type = resolved.digest, ""
    raw = await catalog.manifest(where.repository, version)
    where.context.visited.add(where.repository)
    manifest = parse_manifest(raw.body, raw.digest, raw.media_type, descriptor_type)
    classification = classify(manifest, tag=tag)
    config = await read_config(where, manifest)
    return Bound(manifest, classification, config, created_ns(manifest, config))


async def read_config(where: Whereabouts, manifest: Manifest) -> bytes | None:
    """The config's bytes where it is small JSON; None where there is none to be had, which must keep nobody from the manifest."""
    config = manifest.config
    if (
        config is None
        or not is_json(config.media_type)
        or config.is_empty
        or config.size > where.context.limits.config_bytes
    ):
        return None
    try:
        return await where.context.origin.blobs.read_blob(where.blob(config), 0, config.size)
    except OcifsError:
        return None


def facts(bound: Bound) -> dict[str, str]:
    """What is shown both as a small file and as an extended attribute."""
    return {
        "digest": str(bound.manifest.digest),
        "media-type": bound.manifest.media_type,
        "artifact-type": bound.classification.artifact_type,
        "kind": bound.classification.kind,
    }


def manifest_nodes(where: Whereabouts, bound: Bound, key: Hashable) -> Iterable[tuple[bytes, Node]]:
    """Everything that a manifest's directory has, by name."""
    manifest, when = bound.manifest, bound.mtime_ns
    yield b"manifest.json", ManifestFile(where, bound)

    def text(name: str, content: str) -> tuple[bytes, Node]:
        return name.encode(), TextFile(("fact", str(manifest.digest), name, content), to_bytes(content), when)

    for name, value in facts(bound).items():
        yield text(name, f"{value}\n" if value else "")
    yield text("size", f"{len(manifest.raw)}\n")
    yield text("summary.txt", summarise(manifest, bound.classification, bound.config))
    if manifest.form is Form.UNKNOWN:
        return
    yield b"annotations", annotation_directory((key, b"annotations"), manifest.annotations, when)
    if manifest.config is not None:
        name = "config.json" if is_json(manifest.config.media_type) else "config"
        yield (
            name.encode(),
            BlobFile(where.context.origin.blobs, where.blob(manifest.config), manifest.config.media_type, when),
        )
        yield text("config.media-type", f"{manifest.config.media_type}\n")
        yield text("config.digest", f"{manifest.config.digest}\n")
    if manifest.form is Form.INDEX:
        yield from index_links(manifest, key, where.siblings, where.context.platform)
    else:
        yield b"layers", LayersDirectory(where.context, where.repository, manifest, bound.config, (key, b"layers"))
        if bound.classification.kind == "image":
            yield b"rootfs", open_rootfs(where.context, where.repository, manifest, bound.config, (key, b"rootfs"))
        payload = payload_files(manifest, bound.classification, bound.config)
        yield b"files", FilesDirectory(where.context, where.repository, payload, (key, b"files"), when)
    catalog = where.context.origin.catalog
    yield (
        b"referrers",
        ReferrersDirectory(catalog, where.repository, manifest.digest, where.siblings, (key, b"referrers")),
    )
    if manifest.subject is not None:
        yield b"subject", Link((key, b"subject"), where.siblings + b"/" + str(manifest.subject.digest).encode())


class ManifestFile(BlobFile):
    """`manifest.json`: the bytes as they were served, and the same extended attributes as the directory's."""

    __slots__ = ("_facts", "_raw")

    def __init__(self, where: Whereabouts, bound: Bound) -> None:
        manifest = bound.manifest
        blob = Blob(where.repository, manifest.digest, len(manifest.raw), manifest.raw)
        super().__init__(where.context.origin.blobs, blob, manifest.media_type, bound.mtime_ns)
        self.key = ("manifest", str(manifest.digest))
        self._facts = facts(bound)
        self._raw = manifest.raw

    async def read(self, offset: int, size: int) -> bytes:
        return self._raw[offset : offset + size]

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(f"user.oci.{name}".encode() for name in ATTRIBUTES)

    async def attribute(self, name: bytes) -> bytes:
        if name not in self.attribute_names():
            raise NoAttribute(f"a manifest has no extended attribute {name!r}")
        return to_bytes(self._facts[name.removeprefix(b"user.oci.").decode()])
