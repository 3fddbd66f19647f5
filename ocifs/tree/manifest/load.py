"""Loads a manifest: reads, parses and classifies it, and reads its config.

Called from the event loop by `ManifestDirectory`, once for each directory, and by the verbs. Every
node below the directory is made from the `LoadedManifest`.

Rules that hold here:

- A manifest is classified once, when it is read. Documents of more than a few kilobytes are parsed
  in a worker thread.
- A config that cannot be read does not prevent the manifest from being shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocifs.concurrency import off_loop
from ocifs.content import Blob
from ocifs.errors import OcifsError
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.artifact import (
    classify,
    has_rootfs,
    is_image_config,
)
from ocifs.oci.kinds.classification import UNKNOWN_KINDS, Classification
from ocifs.oci.kinds.flavours import config_flavours
from ocifs.oci.kinds.payload import needs_config
from ocifs.oci.kinds.refine import refine
from ocifs.oci.manifest import Form, Manifest, parse_manifest, schema1_config
from ocifs.oci.mediatype import is_json
from ocifs.tree.blob import with_known_size
from ocifs.tree.manifest.context import Context
from ocifs.tree.manifest.times import created_ns


@dataclass(frozen=True, slots=True)
class ManifestLocation:
    """The location of a manifest: a tag or digest in a repository.

    `siblings` and `blobs` are relative paths from its directory to those of the repository's
    manifests and blobs.
    """

    context: Context
    repository: str
    version: str | Digest
    siblings: bytes = b".."
    blobs: bytes = b"../../_blobs"
    descriptor_type: str = ""

    def blob(self, descriptor: Descriptor) -> Blob:
        return Blob.of(self.repository, descriptor)


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest, its kind, its config if that was read, and its time."""

    manifest: Manifest
    classification: Classification
    config: bytes | None
    mtime_ns: int


async def load_manifest(location: ManifestLocation) -> LoadedManifest:
    """Read and classify a manifest, and read its config if that is small."""
    manifest, classification = await identify(location)
    manifest = await _with_config_size(location, manifest)
    # A manifest of schema 1 contains its config, so there is no blob to read.
    schema1 = manifest.form is Form.SCHEMA1
    config = None if schema1 else await read_config(location, manifest, classification)
    size = len(manifest.raw) + len(config or b"")
    # Flavours and time are found by parsing the config, which may have megabytes.
    return await off_loop(size, lambda: _loaded(manifest, classification, config))


def _loaded(
    manifest: Manifest, classification: Classification, config: bytes | None
) -> LoadedManifest:
    if manifest.form is Form.SCHEMA1:
        config = schema1_config(manifest.raw)
    if config:
        classification = refine(classification, config)
    if config and has_rootfs(manifest, classification):
        flavours = (*classification.flavours, *config_flavours(config))
        classification = replace(classification, flavours=flavours)
    return LoadedManifest(manifest, classification, config, created_ns(manifest, config))


async def _with_config_size(location: ManifestLocation, manifest: Manifest) -> Manifest:
    """The manifest with the size of its config. One request if the descriptor has none; the size
    stays unknown if that fails.
    """
    config = manifest.config
    if config is None or config.size != UNKNOWN_SIZE or config.is_empty:
        return manifest
    try:
        blob = await with_known_size(location.context.origin.blobs, location.blob(config))
    except OcifsError:
        return manifest
    return replace(manifest, config=replace(config, size=blob.size))


async def identify(location: ManifestLocation) -> tuple[Manifest, Classification]:
    """Read and classify a manifest: at most one request.

    For a cached tag it asks whether the tag has moved.
    """
    catalog, version = location.context.origin.catalog, location.version
    descriptor_type = location.descriptor_type
    tag = ""
    if isinstance(version, str):
        tag, descriptor_type = version, ""
        raw = await catalog.tagged(location.repository, version)
    else:
        raw = await catalog.manifest(location.repository, version)
    location.context.visited.add(location.repository)
    odd = (*raw.notes, *location.context.size_notes(location.repository, raw.digest, len(raw.body)))

    def understand() -> tuple[Manifest, Classification]:
        manifest = parse_manifest(raw.body, raw.digest, raw.media_type, descriptor_type)
        manifest = replace(manifest, notes=(*manifest.notes, *odd)) if odd else manifest
        return manifest, classify(manifest, tag=tag, own=location.context.own_kinds)

    return await off_loop(len(raw.body), understand)


async def read_config(
    location: ManifestLocation, manifest: Manifest, classification: Classification
) -> bytes | None:
    """The config's bytes if it is small and has a known type: that of an image, or of a known kind
    of artifact.

    A config of an unknown type is opaque (image-spec, manifest.md). None also if it cannot be read,
    which must not hide the manifest.
    """
    config = manifest.config
    if config is None or config.is_empty or not _is_understood(config, classification):
        return None
    # An unknown size is negative.
    if not 0 <= config.size <= location.context.limits.config_bytes:
        return None
    try:
        return await location.context.origin.blobs.read_blob(location.blob(config), 0, config.size)
    except OcifsError:
        return None


def _is_understood(config: Descriptor, classification: Classification) -> bool:
    if needs_config(classification):
        return True
    known = classification.kind not in UNKNOWN_KINDS or is_image_config(config.media_type)
    return known and is_json(config.media_type)


def facts(loaded: LoadedManifest) -> dict[str, str]:
    """The facts that are both small files and extended attributes."""
    return {
        "digest": str(loaded.manifest.digest),
        "media-type": loaded.manifest.media_type,
        "artifact-type": loaded.classification.artifact_type,
        "kind": loaded.classification.kind,
    }
