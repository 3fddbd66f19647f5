"""Write a manifest and everything that it refers to as an OCI image layout.

Runs in the event loop of an AsyncTree; the layout is written in worker threads.

- Bytes are written as the registry serves them, so every digest stays the same.
- Blobs are copied side by side. The store divides the connections of the host among them.
- Content that the layout has already, and that is correct, is not fetched again.
- Manifests are written after their blobs and children, and the entry in `index.json` last. A reader
  of the layout never finds a reference to missing content.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ocifs.api import AsyncTree
from ocifs.concurrency import in_thread
from ocifs.content import RawManifest
from ocifs.errors import NotFound, Unsupported, UsageError
from ocifs.layout.writer import LayoutWriter
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import blob_children, child_role
from ocifs.oci.local import LayoutSource, split_digest
from ocifs.oci.manifest import Form, Manifest, parse_manifest
from ocifs.oci.platform import first_match
from ocifs.oci.reference import is_tag, parse_source
from ocifs.settings import MIB
from ocifs.tree.blob import BlobFile, with_known_size
from ocifs.tree.manifest.load import ManifestLocation
from ocifs.tree.manifest.reachable import check_depth
from ocifs.verbs.manifests import manifest_directory
from ocifs.verbs.progress import Progress
from ocifs.verbs.side_by_side import side_by_side

_PIECE = 4 * MIB  # copied at once
_EXPORTABLE = (Form.MANIFEST, Form.INDEX, Form.ARTIFACT)


def parse_destination(text: str) -> LayoutSource:
    """The layout `oci:DIR[:TAG]`. Raises UsageError for any other text."""
    target = parse_source(text) if text.startswith("oci:") else None
    if (
        not isinstance(target, LayoutSource)
        or target.ref.startswith("@")
        or split_digest(target.ref)[1] is not None
    ):
        raise UsageError(f"invalid destination: {text}", hint="use oci:DIR or oci:DIR:TAG")
    return target


async def export_image(
    tree: AsyncTree,
    destination: str,
    path: str = "",
    progress: Progress | None = None,
) -> Digest:
    """Export the manifest at a path, and return the digest that the layout lists.

    An index is exported with all of its children, or with only the child for the platform if the
    tree was opened with one. `destination` is `oci:DIR[:TAG]`; progress is counted in bytes.
    Raises UsageError, NotFound, Unsupported, WriteFailed and the errors of a read.
    """
    target = parse_destination(destination)
    location = (await manifest_directory(tree, path)).location
    with LayoutWriter(Path(target.path), location.context.limits) as layout:
        return await _Export(tree, location, layout, progress or Progress()).run(target.ref)
    raise AssertionError("the layout swallows nothing")


@dataclass
class _Export:
    """One export, from the location of a manifest to a layout."""

    tree: AsyncTree
    location: ManifestLocation
    layout: LayoutWriter
    progress: Progress
    _manifests: dict[Digest, Manifest] = field(default_factory=dict)
    _blobs: dict[Digest, Descriptor] = field(default_factory=dict)

    async def run(self, name: str) -> Digest:
        """Export, and list the manifest under `name` or the tag that it was read by."""
        version = self.location.version
        self.progress.begin("reading manifests")
        top = await self._read(self.location)
        if self.tree.settings.view.platform is not None and top.form is Form.INDEX:
            top = await self._read(replace(self.location, version=self._child(top).digest))
        await self._collect(top, 0)
        await self._copy(list(self._blobs.values()))
        # Children were added after their index, and are written before it.
        for manifest in reversed(self._manifests.values()):
            await in_thread(self.layout.put, manifest.digest, manifest.raw)
        tag = name or (version if isinstance(version, str) and is_tag(version) else "")
        size = len(top.raw)
        await in_thread(self.layout.list_manifest, top.digest, top.media_type, size, tag)
        return top.digest

    def _child(self, index: Manifest) -> Descriptor:
        children = [child for child in index.manifests if child_role(child) == "platform"]
        platform = self.location.context.platform
        number = first_match([child.platform for child in children], platform)
        if number is None:
            platforms = ", ".join(dict.fromkeys(str(child.platform) for child in children))
            raise NotFound(
                f"no manifest for {platform} in {index.digest}",
                hint=f"available platforms: {platforms}" if platforms else "",
            )
        return children[number]

    async def _read(self, location: ManifestLocation, known: Descriptor | None = None) -> Manifest:
        """A manifest, from the layout if it is there, else from the cache or the registry."""
        catalog, version = location.context.origin.catalog, location.version
        raw = None
        # An earlier export that was interrupted has written some of the manifests.
        if known is not None:
            body = await in_thread(self.layout.small, known.digest, known.size)
            raw = None if body is None else RawManifest(known.digest, known.media_type, body)
        if raw is None:
            with self.tree.deadline():
                if isinstance(version, str):
                    raw = await catalog.tagged(location.repository, version)
                else:
                    raw = await catalog.manifest(location.repository, version)
        assert raw is not None
        descriptor_type = known.media_type if known else ""
        return parse_manifest(raw.body, raw.digest, raw.media_type, descriptor_type)

    async def _collect(self, manifest: Manifest, depth: int) -> None:
        """Add a manifest, its blobs and its children."""
        if manifest.form not in _EXPORTABLE:
            reason = (
                f"an OCI layout cannot contain {manifest.form.value} manifests"
                if manifest.form is Form.SCHEMA1
                else f"its blobs and children are not known ({manifest.form_reason})"
            )
            raise Unsupported(f"cannot export {manifest.digest}: {reason}")
        check_depth(depth, self.location.context.limits)
        self._manifests[manifest.digest] = manifest
        for part in (manifest.config, *manifest.layers):
            if part is not None:
                self._blobs[part.digest] = part
        blobs = blob_children(manifest)
        self._blobs.update((blob.digest, blob) for blob in blobs)
        # Blobs of BuildKit's older cache are copied as blobs, although an index lists them.
        for child in () if blobs else manifest.manifests:
            if child.digest not in self._manifests:
                await self._collect_child(child, depth + 1)

    async def _collect_child(self, child: Descriptor, depth: int) -> None:
        try:
            manifest = await self._read(replace(self.location, version=child.digest), child)
        except NotFound as error:
            raise NotFound(
                f"missing child of the index: {error}",
                hint="export a single child with --platform",
            ) from None
        if child_role(child) == "blob":
            # Its type is unknown, so it has no children that could be found.
            self._manifests[manifest.digest] = manifest
        else:
            await self._collect(manifest, depth)

    async def _with_size(self, blob: Descriptor) -> Descriptor:
        """The descriptor with its size, which is requested if it is missing."""
        with self.tree.deadline():
            known = await with_known_size(
                self.location.context.origin.blobs, self.location.blob(blob)
            )
        return replace(blob, size=known.size)

    async def _copy(self, blobs: list[Descriptor]) -> None:
        # The total is known before the first byte is copied.
        blobs = [await self._with_size(blob) for blob in blobs]
        self.progress.item = "blob"
        self.progress.begin("")
        self.progress.expect(sum(blob.size for blob in blobs), len(blobs))
        await side_by_side(self._copy_missing, blobs)

    async def _copy_missing(self, blob: Descriptor) -> None:
        # It only reads, so a cancelled export need not wait until the file is hashed.
        has = self.layout.has
        if await in_thread(has, blob.digest, blob.size, abandon_on_cancel=True):
            self.progress.advance(blob.size, reused=True)
        else:
            await self._copy_blob(blob)
        self.progress.finish_item()

    async def _copy_blob(self, blob: Descriptor) -> None:
        # Open for the whole copy, so that the blob is not evicted meanwhile.
        origin = self.location.context.origin
        file = BlobFile(origin.blobs, self.location.blob(blob), blob.media_type)
        file.on_open()
        try:
            with self.layout.writer(blob.digest) as writer:
                for offset in range(0, blob.size, _PIECE):
                    with self.tree.deadline():
                        chunk = await file.read_toward_end(offset, _PIECE)
                    await in_thread(writer.write, chunk)
                    self.progress.advance(len(chunk))
                # In a thread: it waits until the disk has the blob.
                await in_thread(writer.finish)
        finally:
            file.on_close()
