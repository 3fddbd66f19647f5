"""A source on this machine, asked the same questions as a registry: an OCI image layout, an
archive, a directory of skopeo's.

It is one repository, whose name is empty, and whose tags are the names of its images (names.py). A
manifest without one is listed by its digest. What it holds is found by `Contents`; disk is read in
worker threads of this object's own, at most `_THREADS` at a time.

Rules that hold here:
- A blob is verified before its last byte is served, once for each state of its file. It is not
  copied into the cache.
- A thread that hangs on its disk is abandoned by its caller, so every wait ends with the caller's
  deadline.
- No network access.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import trio

from ocifs.concurrency import SingleFlight, in_thread, note_progress
from ocifs.content import Blob, BlobStream, DerivedCache, RawManifest
from ocifs.errors import (
    BlobMissing,
    IntegrityError,
    LimitExceeded,
    NotFound,
    OcifsError,
    RegistryFailed,
)
from ocifs.layout.contents import Contents
from ocifs.layout.file_range import FileRange, Version
from ocifs.layout.names import NameTable
from ocifs.layout.opener import SourceOpener
from ocifs.layout.referrers import ReferrerFinder
from ocifs.layout.unpacked import OnProgress, running
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.local import LayoutSource, split_digest
from ocifs.oci.manifest import verify_manifest
from ocifs.settings import MIB, Limits, Settings

log = logging.getLogger("ocifs.layout")

T = TypeVar("T")

_THREADS = 16
_NOTES = 10  # about names that several images have


class Layout:
    """A Catalog, a BlobSource and a BlobReader over one local source."""

    def __init__(
        self,
        contents: Contents,
        nursery: trio.Nursery,
        limits: Limits,
        *,
        verify_full: bool = False,
    ) -> None:
        self._contents = contents
        self._limits = limits
        self._verify_full = verify_full
        self._checks: SingleFlight[tuple[Digest, Version], None] = SingleFlight(nursery)
        self._checked: dict[Digest, Version] = {}
        self._names = NameTable(())
        self._threads = trio.CapacityLimiter(_THREADS)
        self._referring = ReferrerFinder(contents, limits)

    @classmethod
    async def open(
        cls,
        source: LayoutSource,
        nursery: trio.Nursery,
        settings: Settings,
        shelf: DerivedCache,
        on_progress: OnProgress | None = None,
    ) -> Layout:
        """Open a local source.

        Raises UsageError for what is not one, and whatever keeps it from being read.

        `on_progress` is called while an archive is unpacked into the shelf.
        """
        async with running(on_progress) as work:
            opening = SourceOpener(source, shelf, settings.limits, work)
            contents = await in_thread(opening.open, abandon_on_cancel=True)
        layout = cls(contents, nursery, settings.limits, verify_full=settings.cache.verify_full)
        await layout._warn(source)
        return layout

    async def names(self) -> NameTable:
        """The names that the source has now. Raises Malformed, LimitExceeded."""

        def look() -> NameTable:
            listed = self._contents.list_manifests()
            return self._names if listed is self._names.listed else NameTable(listed)

        self._names = await self._run(look)
        return self._names

    async def version(self, ref: str) -> str | Digest:
        """What a reference of a source is to the tree: a name, or a digest, which need not be
        listed. Raises NotFound.
        """
        name, digest = split_digest(ref)
        if digest is None or (name and ref in (await self.names()).shown):
            return ref
        if name:  # both have to mean the same
            return (await self.resolve("", ref)).digest
        return digest

    async def repositories(self) -> tuple[str, ...]:
        return ("",)

    async def brief_list(self) -> tuple[str, ...] | None:
        return ("",)

    async def tags(self, repository: str) -> tuple[str, ...]:
        self._check_repository(repository)
        return (await self.names()).shown

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        self._check_repository(repository)
        found = (await self.names()).find(tag)
        if found.descriptor is None:
            raise found.problem or NotFound(f"no image is called {tag!r} here")
        return found.descriptor

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self.manifest(repository, (await self.resolve(repository, tag)).digest)

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        self._check_repository(repository)
        limit = self._limits.manifest_bytes

        def read() -> bytes:
            place = self._contents.find(digest)
            if place.size > limit:
                raise LimitExceeded(
                    f"the manifest has {place.size} bytes, limits.manifest_bytes allows {limit}"
                )
            body = place.read(0, place.size)
            verify_manifest(body, digest)
            return body

        body = await self._run(read)
        listed = (await self.names()).of_digest(str(digest))
        if listed is None or listed.descriptor is None:
            return RawManifest(digest, "", body)
        notes = await self._run(self._contents.notes)
        if listed.descriptor.size not in (len(body), UNKNOWN_SIZE):
            notes += (
                f"its descriptor in index.json records {listed.descriptor.size} bytes, it has {len(body)}",
            )
        return RawManifest(digest, listed.descriptor.media_type, body, notes)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        self._check_repository(repository)
        return await self._run(lambda: self._referring.to(digest))

    async def blob_size(self, repository: str, digest: Digest) -> int:
        self._check_repository(repository)
        return (await self._find(digest)).size

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        self._check_repository(blob.repository)
        place = await self._find(blob.digest)
        if not place.trusted:
            await self._verify(blob.digest, place)
        yield _FileStream(place, start, stop, self._threads)

    def report_corrupt(self, digest: Digest) -> bool:
        return False

    def acquire(self, digest: Digest) -> None:
        """Nothing of a layout is cached."""

    def release(self, digest: Digest) -> None:
        """Nothing of a layout is cached."""

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        if blob.data is not None:
            return blob.data[offset : offset + length]
        self._check_repository(blob.repository)

        def read() -> tuple[FileRange, bytes]:
            try:
                place = self._contents.find(blob.digest)
            except NotFound as error:
                raise BlobMissing(str(error), hint=error.hint) from None
            if place.size != blob.size:
                raise IntegrityError(
                    f"{blob.digest} has {place.size} bytes on disk, its descriptor records {blob.size}"
                )
            wanted = not self._verify_full and place.trusted
            return place, place.read(offset, length) if wanted or self._is_checked(
                blob.digest, place
            ) else b""

        place, piece = await self._run(read)
        last = offset + length >= blob.size
        if (last or self._verify_full or not place.trusted) and not self._is_checked(
            blob.digest, place
        ):
            await self._verify(blob.digest, place)
            piece = piece or await self._run(lambda: place.read(offset, length))
        return piece

    def _is_checked(self, digest: Digest, place: FileRange) -> bool:
        return self._checked.get(digest) == place.version

    async def _verify(self, digest: Digest, place: FileRange) -> None:
        if self._is_checked(digest, place):
            return

        async def check() -> None:
            hasher, position = digest.hasher(), 0

            def advance() -> int:
                piece = place.read(position, 4 * MIB)
                hasher.update(piece)
                return len(piece)

            while count := await self._run(advance):
                position += count
                note_progress()
            if position != place.size or hasher.hexdigest() != digest.encoded:
                raise IntegrityError(
                    f"the content of {digest} in the layout is not that of its digest"
                )
            self._checked[digest] = place.version

        await self._checks.run((digest, place.version), check)

    async def _find(self, digest: Digest) -> FileRange:
        return await self._run(lambda: self._contents.find(digest))

    async def _run(self, work: Callable[[], T]) -> T:
        """Read the disk in a thread, which is left behind when its caller gives up."""
        return await in_thread(work, abandon_on_cancel=True, limiter=self._threads)

    async def notes(self) -> tuple[str, ...]:
        """What is odd about the source, for people. Raises what listing it raises."""
        ambiguous = (await self.names()).ambiguous[:_NOTES]
        said = [
            f"several images are called {name!r}, which names none of them" for name in ambiguous
        ]
        return (*await self._run(self._contents.notes), *said)

    async def _warn(self, source: LayoutSource) -> None:
        with suppress(OcifsError):  # which every question about names meets as well
            for note in await self.notes():
                log.warning("%s: %s", source, note)

    def _check_repository(self, repository: str) -> None:
        if repository:
            raise NotFound(f"a layout is one repository without a name, not {repository!r}")


class _FileStream:
    """A BlobStream over a file."""

    def __init__(
        self, place: FileRange, start: int, stop: int, threads: trio.CapacityLimiter
    ) -> None:
        self._place = place
        self._stop = min(stop, place.size)
        self._threads = threads
        self.start = start
        self.total: int | None = place.size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        while position < self._stop:
            length = min(MIB, self._stop - position)
            piece = await in_thread(
                self._place.read, position, length, abandon_on_cancel=True, limiter=self._threads
            )
            if not piece:
                raise RegistryFailed("the file became shorter while it was read")
            position += len(piece)
            yield piece
