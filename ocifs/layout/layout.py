"""A local source behind the protocols of a registry: a layout, an archive, a skopeo directory.

The tree and the command line use a `Layout` like a registry: it is a Catalog, a BlobSource and a
BlobReader. Its methods run on the event loop. `Contents` reads the disk, in worker threads with a
limiter of their own, at most `_THREADS` at a time.

The source is one repository with an empty name. Its tags are the names of its images (names.py); a
manifest without a name is listed by its digest.

State, changed on the event loop only:

- `_names`: the names of the current list of manifests, replaced when the list has changed
- `_verified`: the version of the file of each blob that was verified
- `_verifications`: verifications in progress; concurrent readers of a blob share one

Rules that hold here:

- A blob is verified before its last byte is served, once for each version of its file. It is not
  copied into the cache.
- A file that is not trusted (file_range.py) is verified before its first byte is served.
- A thread that blocks on its disk is abandoned when the caller's deadline passes.
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
from ocifs.layout.unpacked import OnProgress, track_progress
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.local import LayoutSource, split_digest
from ocifs.oci.manifest import verify_manifest
from ocifs.settings import MIB, Limits, Settings

log = logging.getLogger("ocifs.layout")

T = TypeVar("T")

# An abandoned thread occupies this limiter until its disk answers, and not that of other sources.
_THREADS = 16
_NOTES = 10  # notes about ambiguous names


class Layout:
    """A Catalog, a BlobSource and a BlobReader over one local source."""

    key_scope: tuple[str, ...] = ()

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
        self._verifications: SingleFlight[tuple[Digest, Version], None] = SingleFlight(nursery)
        self._verified: dict[Digest, Version] = {}
        self._names = NameTable(())
        self._threads = trio.CapacityLimiter(_THREADS)
        self._referrers = ReferrerFinder(contents, limits)

    @classmethod
    async def open(
        cls,
        source: LayoutSource,
        nursery: trio.Nursery,
        settings: Settings,
        cache: DerivedCache,
        on_progress: OnProgress | None = None,
    ) -> Layout:
        """Open a local source. Raises UsageError, Malformed, AccessDenied, LimitExceeded.

        `on_progress`: called while an archive is decompressed into the cache.
        """
        # An archive is decompressed here, which may take minutes: progress extends the deadline.
        async with track_progress(on_progress) as progress:
            opening = SourceOpener(source, cache, settings.limits, progress)
            contents = await in_thread(opening.open, abandon_on_cancel=True)
        layout = cls(contents, nursery, settings.limits, verify_full=settings.cache.verify_full)
        await layout._log_notes(source)
        return layout

    async def names(self) -> NameTable:
        """The current names of the source's manifests. Raises Malformed, LimitExceeded."""

        def read() -> NameTable:
            entries = self._contents.list_manifests()
            return self._names if entries is self._names.entries else NameTable(entries)

        self._names = await self._run(read)
        return self._names

    async def version(self, ref: str) -> str | Digest:
        """The version that a source's reference selects: a name, or a digest, listed or not.

        Raises NotFound.
        """
        name, digest = split_digest(ref)
        if digest is None or (name and ref in (await self.names()).shown):
            return ref
        # The name must resolve to the digest.
        return (await self.resolve("", ref)).digest if name else digest

    async def repositories(self) -> tuple[str, ...]:
        return ("",)

    async def brief_list(self) -> tuple[str, ...] | None:
        return ("",)

    async def tags(self, repository: str) -> tuple[str, ...]:
        _check_repository(repository)
        return (await self.names()).shown

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        _check_repository(repository)
        entry = (await self.names()).find(tag)
        if entry.descriptor is None:
            raise entry.problem or NotFound(f"no image named {tag!r} in this source")
        return entry.descriptor

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self.manifest(repository, (await self.resolve(repository, tag)).digest)

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        _check_repository(repository)
        limit = self._limits.manifest_bytes

        def read() -> bytes:
            file = self._contents.find(digest)
            if file.size > limit:
                raise LimitExceeded(
                    f"the manifest has {file.size} bytes, limits.manifest_bytes allows {limit}"
                )
            body = file.read(0, file.size)
            verify_manifest(body, digest)
            return body

        body = await self._run(read)
        entry = (await self.names()).of_digest(str(digest))
        if entry is None or entry.descriptor is None:
            return RawManifest(digest, "", body)
        notes = await self._run(self._contents.notes)
        size = entry.descriptor.size
        if size not in (len(body), UNKNOWN_SIZE):
            notes += (f"its descriptor in index.json records {size} bytes, it has {len(body)}",)
        return RawManifest(digest, entry.descriptor.media_type, body, notes)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        _check_repository(repository)
        return await self._run(lambda: self._referrers.of(digest))

    async def blob_size(self, repository: str, digest: Digest) -> int:
        _check_repository(repository)
        return (await self._run(lambda: self._contents.find(digest))).size

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        _check_repository(blob.repository)
        file = await self._run(lambda: self._contents.find(blob.digest))
        if not file.trusted:
            await self._verify(blob.digest, file)
        yield _FileStream(file, start, stop, self._threads)

    def report_corrupt(self, digest: Digest) -> bool:
        return False

    def is_strained(self) -> bool:
        return False

    def acquire(self, digest: Digest) -> None:
        """Nothing of a layout is cached."""

    def release(self, digest: Digest) -> None:
        """Nothing of a layout is cached."""

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        if blob.data is not None:
            return blob.data[offset : offset + length]
        _check_repository(blob.repository)

        def read() -> tuple[FileRange, bytes]:
            file = _find_blob(self._contents, blob)
            # The last piece is verified before it is returned, so that a reader of the whole blob
            # gets an error. With verify_full, nothing is returned before.
            before_verification = not self._verify_full and file.trusted
            if before_verification or self._is_verified(blob.digest, file):
                return file, file.read(offset, length)
            return file, b""

        file, piece = await self._run(read)
        must_verify = offset + length >= blob.size or self._verify_full or not file.trusted
        if must_verify and not self._is_verified(blob.digest, file):
            await self._verify(blob.digest, file)
            piece = piece or await self._run(lambda: file.read(offset, length))
        return piece

    def _is_verified(self, digest: Digest, file: FileRange) -> bool:
        return self._verified.get(digest) == file.version

    async def _verify(self, digest: Digest, file: FileRange) -> None:
        """Compare a blob with its digest, once for each version. Raises IntegrityError."""
        if self._is_verified(digest, file):
            return

        async def verify() -> None:
            hasher, position = digest.hasher(), 0

            # One thread call for each piece: the caller's deadline is extended after each of them.
            def advance() -> int:
                piece = file.read(position, 4 * MIB)
                hasher.update(piece)
                return len(piece)

            while count := await self._run(advance):
                position += count
                note_progress()
            if position != file.size or hasher.hexdigest() != digest.encoded:
                raise IntegrityError(f"the content of {digest} in the layout has another digest")
            self._verified[digest] = file.version

        await self._verifications.run((digest, file.version), verify)

    async def _run(self, work: Callable[[], T]) -> T:
        """Read the disk in a worker thread, which is abandoned if the caller is cancelled."""
        return await in_thread(work, abandon_on_cancel=True, limiter=self._threads)

    async def notes(self) -> tuple[str, ...]:
        """Violations of the specification, for display. Raises Malformed, LimitExceeded."""
        ambiguous = (await self.names()).ambiguous[:_NOTES]
        notes = [
            f"ambiguous name, ignored: several images are named {name!r}" for name in ambiguous
        ]
        return (*await self._run(self._contents.notes), *notes)

    async def _log_notes(self, source: LayoutSource) -> None:
        # Errors are raised again by the first access to the names.
        with suppress(OcifsError):
            for note in await self.notes():
                log.warning("%s: %s", source, note)


def _check_repository(repository: str) -> None:
    """Raise NotFound for every name, since the repository of a layout does not have one."""
    if repository:
        raise NotFound(f"no repository {repository!r}: a layout has one without a name")


def _find_blob(contents: Contents, blob: Blob) -> FileRange:
    """Find a blob on disk. Raises BlobMissing, IntegrityError if its size differs."""
    try:
        file = contents.find(blob.digest)
    except NotFound as error:
        raise BlobMissing(str(error), hint=error.hint) from None
    # A wrong size is detected before the first byte is served, and without a hash.
    if file.size != blob.size:
        raise IntegrityError(
            f"{blob.digest} has {file.size} bytes on disk, its descriptor records {blob.size}"
        )
    return file


class _FileStream:
    """A BlobStream over a file."""

    def __init__(
        self, file: FileRange, start: int, stop: int, threads: trio.CapacityLimiter
    ) -> None:
        self._file = file
        self._stop = min(stop, file.size)
        self._threads = threads
        self.start = start
        self.stop: int | None = self._stop
        self.total: int | None = file.size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        while position < self._stop:
            length = min(MIB, self._stop - position)
            piece = await in_thread(
                self._file.read, position, length, abandon_on_cancel=True, limiter=self._threads
            )
            if not piece:
                raise RegistryFailed("the file became shorter while it was read")
            position += len(piece)
            yield piece
