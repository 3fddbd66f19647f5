"""Verified, shared, cached reads of any source of blobs.

Called in the event loop by everything that reads blobs. The parts of the work:

    CachedBlobs        a read: waits for the blocks that it needs, and returns their bytes
      OpenBlobs        the open blobs, each shared by its readers          (opened.py)
      Fetches          fetches of missing blocks, each shared by its readers (fetches.py)
      Verifier         comparison of complete blobs with their digests     (verification.py)
      OtherProcess     waits for blocks that another process fetches       (other_process.py)

State is in the `OpenBlob` of each blob (open_blob.py), and in its files, which other processes
share (blocks.py).

- A read waits for the blocks that it needs, and for nothing else. Each byte is fetched once.
- As soon as every block of a blob is cached, no more of it is served until the whole matches its
  digest. With `verify_full`, nothing is served before that.
- Corrupt content is fetched once more from another mirror, if there is one and none of its bytes
  have been served.
- A block that is damaged on the disk or unreadable is fetched again. Blobs that the disk does not
  store are read into memory.
- Worker threads write to the disk and hash; the event loop only moves pieces.
- No task ends the nursery.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import trio

from ocifs.concurrency import in_thread, note_progress, note_waiting_for
from ocifs.content import Blob, BlobSource
from ocifs.errors import CacheFailed, CacheFull, IntegrityError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.fetches import Fetches
from ocifs.store.blobs.fetching import OFFLINE
from ocifs.store.blobs.open_blob import Damaged, OpenBlob
from ocifs.store.blobs.opened import OpenBlobs
from ocifs.store.blobs.other_process import OtherProcess
from ocifs.store.blobs.overflow import Overflow
from ocifs.store.blobs.readahead import ReaderState
from ocifs.store.blobs.verification import RetryElsewhere, Verifier
from ocifs.store.disk import Disk

_REPAIRS = 3  # times that one read may find damage


class KnownManifests(Protocol):
    """The cached manifests of the registry that the blobs come from."""

    host: str

    async def has_seen(self, repository: str, digest: Digest) -> bool:
        """Whether the current credential has seen a manifest that names a blob."""
        ...


class _NoCredentials:
    """The KnownManifests of a source without credentials: any blob may be read."""

    host = ""

    async def has_seen(self, repository: str, digest: Digest) -> bool:
        return True


class CachedBlobs:
    """A BlobReader over a BlobSource, which caches the bytes that it reads."""

    key_scope: tuple[str, ...] = ()

    def __init__(
        self,
        source: BlobSource,
        disk: Disk,
        nursery: trio.Nursery,
        settings: Settings,
        manifests: KnownManifests | None = None,
    ) -> None:
        timing = settings.timing
        # For another process that fetches, opens or verifies the same blob.
        self._wait_for_others = min(timing.stall_timeout, timing.timeout / 2)
        self._source = source
        self._disk = disk
        self._settings = settings
        self._manifests = manifests or _NoCredentials()
        cache = settings.cache
        overflow = Overflow(disk.root.parent, cache.memory_bytes, forgets=not cache.verify_full)
        self._opened = OpenBlobs(disk, nursery, self._wait_for_others, overflow)
        self._fetches = Fetches(source, disk, nursery, settings)
        self._verifier = Verifier(source, self._opened, disk, nursery, self._wait_for_others)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """The size. It is requested from the registry even if the blob is cached, since not every
        credential may read it.

        If the registry cannot be reached, this credential must have seen a manifest with the blob.
        """
        outage = Unreachable(OFFLINE)
        if not self._settings.cache.offline:
            try:
                return await self._source.blob_size(repository, digest)
            except Unreachable as error:
                outage = error
        if not await self._manifests.has_seen(repository, digest):
            raise outage
        try:
            return (await in_thread(self._disk.whole(digest).stat)).st_size
        except OSError:
            raise outage from None

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        if blob.data is not None:
            return blob.data[offset : offset + length]
        length = max(0, min(length, blob.size - offset))
        if not length:
            return b""
        spilled = self._opened.overflow.spilled
        failures = 0
        while True:
            # Before the read, since another reader may spill the blob during it.
            was_spilled = blob.digest in spilled
            try:
                # The next attempt opens the blob anew, and fetches it from another mirror.
                with suppress(RetryElsewhere):
                    return await self._read(blob, range(offset, offset + length), toward)
            except IntegrityError as error:
                # With `verify_full`, no byte was served that was not verified.
                error.is_transient = error.is_transient or self._settings.cache.verify_full
                raise
            except (CacheFull, CacheFailed) as error:
                failures += 1
                # Offline, memory would have none of the bytes that the disk can still read.
                if failures > 2 or self._settings.cache.offline:
                    raise
                if was_spilled or isinstance(error, CacheFailed):
                    # Memory may be full, or the process may be out of file descriptors.
                    self.close_idle(0)
                if not was_spilled and blob.digest not in spilled:
                    self._opened.spill(blob.digest, error)

    def acquire(self, digest: Digest) -> None:
        self._opened.acquire(digest)

    def release(self, digest: Digest) -> None:
        self._opened.release(digest)

    def close_idle(self, idle: float) -> None:
        self._opened.close_idle(idle)

    async def _read(self, blob: Blob, wanted: range, toward: int) -> bytes:
        opened = self._opened.find(blob.digest) or await self._opened.open(blob)
        if opened.size != blob.size:
            raise IntegrityError(
                f"descriptors disagree on the size of {blob.digest}: {blob.size} or {opened.size}"
                " bytes"
            )
        with opened.used():
            for _ in range(_REPAIRS):
                opened.blocks.position = wanted.start
                if not opened.is_whole:
                    await self._need(blob, opened, wanted, toward)
                # Before the read: a verification during it must treat these bytes as served.
                opened.mark_served()
                content = await opened.read(wanted.start, len(wanted))
                if content is not None:
                    for fetch in opened.fetches:
                        fetch.read_behind()
                    return content
                if not opened.blocks.forgets:
                    await self._verifier.refetch_damaged(blob, opened)
        raise _damaged_repeatedly(blob)

    async def _need(self, blob: Blob, opened: OpenBlob, wanted: range, toward: int) -> None:
        """Wait until these bytes may be served."""
        blocks = opened.blocks
        if self._settings.cache.verify_full:
            reader = opened.ahead.reader(0, 1, blob.size)
        else:
            reader = opened.ahead.reader(wanted.start, len(wanted), toward)
        others = OtherProcess(self._wait_for_others)
        first, last = wanted.start // BLOCK, -(-wanted.stop // BLOCK)
        if self._settings.cache.verify_full:
            first, last = 0, blocks.count
        damages = 0
        while not opened.is_whole:
            # Each turn looks at the blocks anew, since anything may have happened during the wait:
            # blocks arrived, were found damaged, or were verified by another process.
            if not blocks.is_trusted(first, last):
                await in_thread(blocks.check, first, last)
            missing = blocks.first_missing(first, last)
            if missing is not None:
                await self._wait(blob, opened, range(missing, last), reader, others)
            elif not blocks.is_trusted(first, last):
                # Another process has just written a block, or is about to.
                if not await others.wait_for_trust():
                    await in_thread(blocks.disown, first, last)
            elif not blocks.is_complete():
                self._fetches.look_ahead(blob, opened, reader)
                return
            elif not await self._verifier.verify(blob, opened):
                damages += 1
                if damages >= _REPAIRS:
                    raise _damaged_repeatedly(blob)
            elif blocks.forgets:
                # Verified, but never whole: forgotten blocks are fetched again.
                return

    async def _wait(
        self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState, others: OtherProcess
    ) -> None:
        """Wait for the first of these blocks, which is missing, or for another event of the blob.

        Raises the error of its fetch.
        """
        missing = wanted.start
        fetch = opened.fetch_of(missing)
        if fetch is None:
            fetch = self._fetches.start(blob, opened, wanted, reader)
        if fetch is None:
            # Another process has locked the block.
            if not others.has_abandoned(opened, missing) and await others.wait(opened, missing):
                return
            fetch = self._fetches.take_over(blob, opened, wanted, reader)
        note_waiting_for(self._manifests.host)
        # `changed` is set for any block of the blob. The caller looks whether it is the right one.
        with fetch.waited_for():
            await opened.changed.wait()
        note_progress()
        if fetch.error is None or opened.is_whole or opened.blocks.has(missing):
            return
        if isinstance(opened.state, Damaged) and not isinstance(
            fetch.error, CacheFull | CacheFailed
        ):
            damaged = IntegrityError(
                f"{blob.digest} is damaged on the cache's disk and cannot be fetched again:"
                f" {fetch.error}"
            )
            damaged.is_transient = True
            raise damaged
        raise fetch.error


def _damaged_repeatedly(blob: Blob) -> CacheFailed:
    return CacheFailed(
        f"{blob.digest} was damaged on the cache's disk {_REPAIRS} times in a row",
        hint="check the disk of the cache directory",
    )
