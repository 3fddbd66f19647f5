"""The names of a manifest's directory: a list of functions, each of which returns some of them.

`ManifestDirectory` calls all of them once, in the event loop, when its manifest is loaded. A new
file in the tree is a function here or in a module of its own, and a line in `CONTENTS`; see
docs/how-to/extend.md.

Rules that hold here:

- Creating the nodes causes no I/O and no long computation.
- A name that a kind of manifest does not have is absent: an image has no `platforms`, and an index
  has no `layers`.
- A manifest whose form is unknown has only its bytes and its facts.
- Every link stays inside the mount.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.content import Blob
from ocifs.errors import NoAttribute
from ocifs.filenames import to_bytes
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.kinds.artifact import has_rootfs
from ocifs.oci.manifest import Form
from ocifs.oci.mediatype import is_json
from ocifs.tree.base import SymlinkNode
from ocifs.tree.blob import BlobFile
from ocifs.tree.manifest.files import FilesDirectory
from ocifs.tree.manifest.index import index_links
from ocifs.tree.manifest.layers import LayersDirectory
from ocifs.tree.manifest.load import LoadedManifest, ManifestLocation, facts
from ocifs.tree.manifest.provider import NamedNodes, NodeProvider, Parent, text_file
from ocifs.tree.manifest.referrers import ReferrersDirectory
from ocifs.tree.manifest.rootfs import open_rootfs
from ocifs.tree.manifest.summary import summarise
from ocifs.tree.static import annotation_directory

ATTRIBUTES = ("digest", "media-type", "artifact-type", "kind")


def fact_files(parent: Parent) -> NamedNodes:
    """`manifest.json`, and small files with facts."""
    location, loaded, _ = parent
    manifest = loaded.manifest
    yield b"manifest.json", ManifestFile(location, loaded)
    for name, value in facts(loaded).items():
        yield text_file(loaded, name, f"{value}\n" if value else "")
    yield text_file(loaded, "size", f"{len(manifest.raw)}\n")
    tag = location.version if isinstance(location.version, str) else ""
    summary = summarise(manifest, loaded.classification, loaded.config, tag=tag)
    yield text_file(loaded, "summary.txt", summary)


def annotation_files(parent: Parent) -> NamedNodes:
    """`annotations/`."""
    loaded, key = parent.loaded, parent.key
    if loaded.manifest.form is not Form.UNKNOWN:
        values = loaded.manifest.annotations
        yield (
            b"annotations",
            annotation_directory((key, b"annotations"), values, loaded.mtime_ns),
        )


def config_files(parent: Parent) -> NamedNodes:
    """`config.json` or `config`, and its facts."""
    location, loaded, _ = parent
    config = loaded.manifest.config
    if loaded.manifest.form is Form.UNKNOWN or config is None:
        return
    # A file of unknown size cannot be shown.
    if config.size != UNKNOWN_SIZE:
        reader, blob = location.context.origin.blobs, location.blob(config)
        name = b"config.json" if is_json(config.media_type) else b"config"
        yield name, BlobFile(reader, blob, config.media_type, loaded.mtime_ns)
    yield text_file(loaded, "config.media-type", f"{config.media_type}\n")
    yield text_file(loaded, "config.digest", f"{config.digest}\n")


def children(parent: Parent) -> NamedNodes:
    """The children of an index."""
    if parent.loaded.manifest.form is Form.INDEX:
        yield from index_links(*parent)


def content(parent: Parent) -> NamedNodes:
    """`layers/`, `rootfs/` and `files/` of a manifest that is not an index."""
    location, loaded, key = parent
    if loaded.manifest.form in (Form.UNKNOWN, Form.INDEX):
        return
    yield b"layers", LayersDirectory(location, loaded, (key, b"layers"))
    if has_rootfs(loaded.manifest, loaded.classification):
        yield b"rootfs", open_rootfs(location, loaded, (key, b"rootfs"))
    yield b"files", FilesDirectory(location, loaded, (key, b"files"))


def relations(parent: Parent) -> NamedNodes:
    """`referrers/`, and the link `subject`."""
    location, loaded, key = parent
    manifest = loaded.manifest
    if manifest.form is Form.UNKNOWN:
        return
    yield b"referrers", ReferrersDirectory(location, manifest.digest, (key, b"referrers"))
    if manifest.subject is not None:
        # A subject need not exist (distribution-spec), so the link may dangle.
        target = location.siblings + b"/" + str(manifest.subject.digest).encode()
        yield b"subject", SymlinkNode((key, b"subject"), target)


CONTENTS: tuple[NodeProvider, ...] = (
    fact_files,
    annotation_files,
    config_files,
    children,
    content,
    relations,
)
"""In the order of a listing."""


class ManifestFile(BlobFile):
    """`manifest.json`: the exact bytes, and the extended attributes of the directory."""

    __slots__ = ("_facts", "_raw")

    def __init__(self, location: ManifestLocation, loaded: LoadedManifest) -> None:
        manifest = loaded.manifest
        blob = Blob(location.repository, manifest.digest, len(manifest.raw), manifest.raw)
        super().__init__(location.context.origin.blobs, blob, manifest.media_type, loaded.mtime_ns)
        # Not the key of a blob: the kernel uses the first node of a key, and that of `_blobs` lacks
        # the facts.
        self.key = ("manifest", str(manifest.digest))
        self._facts = facts(loaded)
        self._raw = manifest.raw

    async def read(self, offset: int, size: int) -> bytes:
        return self._raw[offset : offset + size]

    def attribute_names(self) -> Sequence[bytes]:
        return fact_attributes()

    async def attribute(self, name: bytes) -> bytes:
        return fact_attribute(self._facts, name)


def fact_attributes() -> Sequence[bytes]:
    """The names of the extended attributes of a manifest."""
    return tuple(f"user.oci.{name}".encode() for name in ATTRIBUTES)


def fact_attribute(values: dict[str, str], name: bytes) -> bytes:
    """The value of an extended attribute of a manifest. Raises NoAttribute."""
    if name not in fact_attributes():
        raise NoAttribute(f"no such extended attribute: {name!r}")
    return to_bytes(values[name.removeprefix(b"user.oci.").decode()])
