"""An OCI image layout on disk, asked the same questions as a registry (image-spec, image-layout.md).

It is one repository, whose name is empty, and whose tags are the layout's ref names; a manifest without one is listed by its digest.

Rules that hold here: disk is read in worker threads; a blob is verified before its last byte is served, once for each state of its file,
and, since it lies on this machine already, it is not copied into any cache.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ocifs.concurrency import SingleFlight, note_progress
from ocifs.content import Blob, BlobStream, RawManifest
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, NotFound, RegistryFailed
from ocifs.layout.files import Files, Place, open_files
from ocifs.oci.descriptor import Descriptor, as_object, parse_descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import load_json, parse_manifest, verify_manifest
from ocifs.oci.reference import LayoutSource
from ocifs.settings import MIB, Limits, Settings

REF_NAME = "org.opencontainers.image.ref.name"


class Layout:
    """A Catalog, a BlobSource and a BlobReader over one layout."""

    def __init__(self, files: Files, nursery: trio.Nursery, limits: Limits, *, verify_full: bool = False) -> None:
        self._files = files
        self._limits = limits
        self._verify_full = verify_full
        self._checks: SingleFlight[tuple[Digest, tuple[int, ...]], None] = SingleFlight(nursery)
        self._checked: dict[Digest, tuple[int, ...]] = {}
        self._nursery = nursery

    @classmethod
    async def open(cls, source: LayoutSource, nursery: trio.Nursery, settings: Settings) -> Layout:
        """Open the layout that a source names. Raises UsageError when there is none."""
        files = await trio.to_thread.run_sync(lambda: open_files(Path(source.path), archive=source.archive))
        return cls(files, nursery, settings.limits, verify_full=settings.cache.verify_full)

    async def repositories(self) -> tuple[str, ...]:
        return ("",)

    async def tags(self, repository: str) -> tuple[str, ...]:
        self._know(repository)
        return tuple(dict.fromkeys(_tag_of(descriptor) for descriptor in await self._index()))

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        self._know(repository)
        for descriptor in await self._index():
            if _tag_of(descriptor) == tag:
                return descriptor
        raise NotFound(f"the layout has no manifest with the ref name {tag!r}")

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self.manifest(repository, (await self.resolve(repository, tag)).digest)

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        self._know(repository)
        body = await self._small(_blob_path(digest), self._limits.manifest_bytes, "manifest_bytes")
        verify_manifest(body, digest)
        known = next((d.media_type for d in await self._index() if d.digest == digest), "")
        return RawManifest(digest, known, body)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        self._know(repository)
        found = []
        for descriptor in (await self._index())[: self._limits.referrers]:
            try:
                raw = await self.manifest("", descriptor.digest)
                manifest = parse_manifest(raw.body, raw.digest, "", descriptor.media_type)
            except (NotFound, Malformed, LimitExceeded):
                continue  # a layout may list what it does not hold (image-layout.md)
            if manifest.subject is not None and manifest.subject.digest == digest:
                kind = manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
                found.append(
                    Descriptor(manifest.media_type, raw.digest, len(raw.body), manifest.annotations, artifact_type=kind)
                )
        return tuple(found)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        self._know(repository)
        return (await self._find(digest)).size

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        self._know(blob.repository)
        yield _Stream(await self._find(blob.digest), start, stop)

    def distrust(self, digest: Digest) -> bool:
        return False

    def hold(self, digest: Digest) -> None:
        """Nothing is kept of a layout."""

    def let_go(self, digest: Digest) -> None:
        """Nothing is kept of a layout."""

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        if blob.data is not None:
            return blob.data[offset : offset + length]
        self._know(blob.repository)
        place = await self._find(blob.digest)
        if place.size != blob.size:
            raise IntegrityError(f"the file of {blob.digest} has {place.size} bytes, its descriptor says {blob.size}")
        if self._verify_full or offset + length >= blob.size:
            await self._verify(blob.digest, place)
        return await trio.to_thread.run_sync(place.read, offset, length)

    async def _verify(self, digest: Digest, place: Place) -> None:
        if self._checked.get(digest) == place.version:
            return

        async def check() -> None:
            hasher, position = digest.hasher(), 0
            while piece := await trio.to_thread.run_sync(place.read, position, 4 * MIB):
                await trio.to_thread.run_sync(hasher.update, piece)
                position += len(piece)
                note_progress()
            if position != place.size or hasher.hexdigest() != digest.encoded:
                raise IntegrityError(f"the file of {digest} in the layout has other content")
            self._checked[digest] = place.version

        await self._checks.run((digest, place.version), check)

    async def _find(self, digest: Digest) -> Place:
        return await trio.to_thread.run_sync(self._files.find, _blob_path(digest))

    async def _small(self, name: str, limit: int, setting: str) -> bytes:
        place = await trio.to_thread.run_sync(self._files.find, name)
        if place.size > limit:
            raise LimitExceeded(f"{name} has {place.size} bytes, {setting} allows {limit}")
        return await trio.to_thread.run_sync(place.read, 0, place.size)

    async def _index(self) -> tuple[Descriptor, ...]:
        body = await self._small("index.json", self._limits.manifest_bytes, "manifest_bytes")
        listed = as_object(load_json(body, "index.json"), "index.json").get("manifests")
        if not isinstance(listed, list):
            raise Malformed("index.json lists no manifests")
        return tuple(parse_descriptor(value, f"index.json: manifests[{n}]") for n, value in enumerate(listed))

    def _know(self, repository: str) -> None:
        if repository:
            raise NotFound(f"a layout is one repository without a name, not {repository!r}")


class _Stream:
    """A BlobStream over a file."""

    def __init__(self, place: Place, start: int, stop: int) -> None:
        self._place = place
        self._stop = min(stop, place.size)
        self.start = start
        self.total: int | None = place.size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        while position < self._stop:
            piece = await trio.to_thread.run_sync(self._place.read, position, min(MIB, self._stop - position))
            if not piece:
                raise RegistryFailed("the file became shorter while it was read")
            position += len(piece)
            yield piece


def _tag_of(descriptor: Descriptor) -> str:
    return descriptor.annotations.get(REF_NAME) or str(descriptor.digest)


def _blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"
