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
from ocifs.tree.blob import BlobFile
from ocifs.tree.manifest.files import FilesDirectory
from ocifs.tree.manifest.index import index_links, missing
from ocifs.tree.manifest.layers import LayersDirectory
from ocifs.tree.manifest.load import Bound, Whereabouts, facts, identify, load
from ocifs.tree.manifest.referrers import Found, ReferrersDirectory, find_referrers
from ocifs.tree.manifest.rootfs import open_rootfs
from ocifs.tree.manifest.summary import summarise
from ocifs.tree.names import to_bytes
from ocifs.tree.node import DIRECTORY, FOREVER, Attributes, Entry, Link, Node, Plain, TextFile
from ocifs.tree.static import annotation_directory

ATTRIBUTES = ("digest", "media-type", "artifact-type", "kind")


class ManifestDirectory(Plain):
    """The directory of one manifest."""

    __slots__ = ("_bound", "_nodes", "_where", "lifetime", "settled")

    def __init__(self, where: Whereabouts, key: Hashable, *, lifetime: float = FOREVER) -> None:
        super().__init__(
            key, Attributes(DIRECTORY, nlink=2, ctime_ns=0)
        )  # which is so when the rest is known, too
        self.lifetime = lifetime
        self.settled = False
        self._where = where
        self._bound: Bound | None = None
        self._nodes: dict[bytes, Node] = {}

    @property
    def digest(self) -> Digest | None:
        """The digest that it is bound to, or None before its first use."""
        return self._bound.manifest.digest if self._bound else None

    async def settle(self) -> None:
        await self.bind()

    @property
    def where(self) -> Whereabouts:
        """Where its manifest is."""
        return self._where

    async def bind(self) -> Bound:
        """Read the manifest, unless that was done.

        Raises NotFound and whatever keeps it from being known.
        """
        if self._bound is None:
            bound = await load(self._where)
            if (
                self._bound is None
            ):  # another task may have been faster, and its answer is the one that was given away
                self._bound = bound
                where = self._where
                where.context.note_siblings(where.repository, bound.manifest)
                if isinstance(where.version, str):
                    where.context.note_tag(where.repository, where.version, bound.manifest)
                self._nodes = dict(manifest_nodes(self._where, bound, self.key))
                self.attributes = self.attributes._replace(mtime_ns=bound.mtime_ns)
                self.settled = True
        return self._bound

    async def kind(self) -> str:
        """The kind alone, without what else binding asks for."""
        return (
            self._bound.classification if self._bound else (await identify(self._where))[1]
        ).kind

    async def referrers(self) -> Found:
        """What refers to the manifest, as kinds and digests, for callers that want all of it at
        once.
        """
        return await find_referrers(self._where, (await self.bind()).manifest.digest)

    async def lookup(self, name: bytes) -> Node:
        bound = await self.bind()
        try:
            return self._nodes[name]
        except KeyError:
            why = missing(name, self._where, bound.manifest)
            raise why or NotFound(
                f"a manifest's directory has no {name.decode(errors='replace')!r}"
            ) from None

    async def entries(self) -> Sequence[Entry]:
        await self.bind()
        return [Entry(name, node) for name, node in self._nodes.items()]

    def attribute_names(self) -> Sequence[bytes]:
        return tuple(f"user.oci.{name}".encode() for name in ATTRIBUTES)

    async def attribute(self, name: bytes) -> bytes:
        if name not in self.attribute_names():
            raise NoAttribute(f"a manifest has no extended attribute {name!r}")
        return to_bytes(facts(await self.bind())[name.removeprefix(b"user.oci.").decode()])


def manifest_nodes(where: Whereabouts, bound: Bound, key: Hashable) -> Iterable[tuple[bytes, Node]]:
    """Everything that a manifest's directory has, by name."""
    manifest, when = bound.manifest, bound.mtime_ns
    yield b"manifest.json", ManifestFile(where, bound)

    def text(name: str, content: str) -> tuple[bytes, Node]:
        return name.encode(), TextFile(
            ("fact", str(manifest.digest), name, content), to_bytes(content), when
        )

    for name, value in facts(bound).items():
        yield text(name, f"{value}\n" if value else "")
    yield text("size", f"{len(manifest.raw)}\n")
    yield text("summary.txt", summarise(manifest, bound.classification, bound.config))
    if manifest.form is Form.UNKNOWN:
        return
    yield b"annotations", annotation_directory((key, b"annotations"), manifest.annotations, when)
    if manifest.config is not None:
        if manifest.config.size != UNKNOWN_SIZE:  # else there is no telling how long the file is
            name = "config.json" if is_json(manifest.config.media_type) else "config"
            blob = where.blob(manifest.config)
            yield (
                name.encode(),
                BlobFile(where.context.origin.blobs, blob, manifest.config.media_type, when),
            )
        yield text("config.media-type", f"{manifest.config.media_type}\n")
        yield text("config.digest", f"{manifest.config.digest}\n")
    if manifest.form is Form.INDEX:
        yield from index_links(where, bound, key)
    else:
        yield b"layers", LayersDirectory(where, bound, (key, b"layers"))
        if bound.classification.kind in ("image", "docker-schema1"):
            yield b"rootfs", open_rootfs(where, bound, (key, b"rootfs"))
        yield b"files", FilesDirectory(where, bound, (key, b"files"))
    yield b"referrers", ReferrersDirectory(where, manifest.digest, (key, b"referrers"))
    if manifest.subject is not None:
        yield (
            b"subject",
            Link((key, b"subject"), where.siblings + b"/" + str(manifest.subject.digest).encode()),
        )


class ManifestFile(BlobFile):
    """`manifest.json`: the bytes as they were served, and the same extended attributes as the
    directory's.
    """

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
