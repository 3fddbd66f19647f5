"""Verified, shared, cached reads of any source of blobs.

Called in the event loop by everything that reads blobs. A read waits for the blocks that it needs
and nothing else; each byte is fetched once for all readers (`fetches.py`).

Rules that hold here:
- as soon as every block of a blob is cached, no more of it is served until the whole was checked
  against its digest; with `verify_full`, nothing before that;
- corrupt content is fetched once more from another mirror, if there is one and none of its bytes
  have been served;
- a block that is damaged on the disk, or that the disk does not read, is fetched again; what the
  disk does not take is read in memory;
- the disk is written and hashed in worker threads, while the event loop only moves pieces; no task
  ends the nursery.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from ocifs.concurrency import (
    SingleFlight,
    current_waiter,
    guarded,
    in_thread,
    note_progress,
    note_waiting_for,
)
from ocifs.content import Blob, BlobSource
from ocifs.errors import CacheFailed, CacheFull, IntegrityError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.fetches import OFFLINE, Fetches
from ocifs.store.blobs.open_blob import OpenBlob, open_files
from ocifs.store.blobs.other_process import OtherProcess, may_verify
from ocifs.store.blobs.overflow import Overflow
from ocifs.store.blobs.readahead import ReaderState
from ocifs.store.disk import Disk

log = logging.getLogger("ocifs.store")

OPEN_BLOBS = 256  # two or three file descriptors each
_REPAIRS = 3  # times that one read finds damage in what it reads
_OTHERS = 0.05  # seconds between two tries to open what another process holds


class _Elsewhere(IntegrityError):
    """What came was wrong, none of it was served, and there is another place to ask."""


async def _always(_repository: str, _digest: Digest) -> bool:
    """Of a source without credentials."""
    return True


class CachedBlobs:
    """A BlobReader over a BlobSource, which caches the bytes that it reads."""

    def __init__(
        self,
        source: BlobSource,
        disk: Disk,
        nursery: trio.Nursery,
        settings: Settings,
        host: str = "",
    ) -> None:
        self._source = source
        self._host = host
        self._disk = disk
        self._nursery = nursery
        self._settings = settings
        timing = settings.timing
        self._patience = min(timing.stall_timeout, timing.timeout / 2)  # with another process
        self._opened: dict[Digest, OpenBlob] = {}  # the one used last is last
        self._opening: SingleFlight[tuple[Digest, int], OpenBlob] = SingleFlight(nursery)
        self._fetches = Fetches(source, disk, nursery, settings)
        self._held: dict[Digest, int] = {}
        self._overflow = Overflow(settings.cache.memory_bytes)
        self.has_seen: Callable[[str, Digest], Awaitable[bool]] = _always

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """The size, from the registry, also of a cached blob: others may be allowed to read what
        this account is not.

        If the registry cannot be asked, the blob has to be in a manifest that this credential has
        seen.
        """
        outage = Unreachable(OFFLINE)
        if not self._settings.cache.offline:
            try:
                return await self._source.blob_size(repository, digest)
            except Unreachable as error:
                outage = error
        if not await self.has_seen(repository, digest):
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
        failures = 0
        while True:
            spilled = blob.digest in self._overflow.spilled
            try:
                with suppress(_Elsewhere):
                    return await self._read(blob, range(offset, offset + length), toward)
            except (CacheFull, CacheFailed) as error:
                failures += 1
                # Without a registry memory would have nothing of the bytes that the disk can still read.
                if failures > 2 or self._settings.cache.offline:
                    raise
                if spilled or isinstance(error, CacheFailed):
                    self.close_idle(
                        0
                    )  # it may be memory that is full, or descriptors that have run out
                if not spilled and blob.digest not in self._overflow.spilled:
                    self._overflow.spill(blob.digest, error)
                    if opened := self._opened.pop(blob.digest, None):
                        opened.retire()

    async def _read(self, blob: Blob, wanted: range, toward: int) -> bytes:
        opened = self._opened.get(blob.digest) or await self._open(blob)
        if opened.size != blob.size:
            raise IntegrityError(
                f"{blob.digest} is said to have {blob.size} bytes here and {opened.size} elsewhere"
            )
        with opened.used():
            for _ in range(_REPAIRS):
                if not opened.verified:
                    await self._need(blob, opened, wanted, toward)
                if not opened.verified:
                    opened.served = True
                content = await opened.read(wanted.start, len(wanted))
                if content is not None:
                    for fetch in opened.fetches:
                        fetch.read_behind()
                    return content
                await self._refetch_damaged(blob, opened)
        raise CacheFailed(f"{blob.digest} is damaged on the cache's disk again and again")

    async def _refetch_damaged(self, blob: Blob, opened: OpenBlob) -> None:
        """A block is not what it was when it was written: fetch such blocks again, and verify again
        a whole that was verified.
        """
        async with opened.verifying:
            opened.damaged |= opened.verified
            opened.verified = False
            self._disk.report(
                f"{blob.digest} is damaged on the cache's disk, and is fetched again where it is"
            )
            await in_thread(opened.files.recheck)

    def acquire(self, digest: Digest) -> None:
        self._held[digest] = self._held.get(digest, 0) + 1

    def release(self, digest: Digest) -> None:
        left = self._held.pop(digest, 0) - 1
        if left > 0:
            self._held[digest] = left

    def close_idle(self, idle: float) -> None:
        """Note on disk what was used, and close the files of blobs that are not open and were not
        read for `idle` seconds.
        """
        now = trio.current_time()
        for digest, opened in list(self._opened.items()):
            if opened.idle and now - opened.last_used >= idle and digest not in self._held:
                self._opened.pop(digest).retire()
            else:
                opened.touch(held=digest in self._held)

    async def _open(self, blob: Blob) -> OpenBlob:
        """Joined by all readers of a blob, since one without a usable map is hashed first."""
        while True:
            opened = await self._opening.run(
                (blob.digest, blob.size), lambda: self._open_files(blob)
            )
            if not opened.retired:
                return opened

    async def _open_files(self, blob: Blob) -> OpenBlob:
        opened = OpenBlob(blob)
        if blob.digest in self._overflow.spilled:
            await in_thread(self._overflow.open, opened, blob.digest)
        else:
            await self._open_on_disk(blob, opened)
        other = self._opened.pop(blob.digest, None)
        if other is not None:  # of another size: one of them is wrong, and the first stays
            opened.retire()
            opened = other
        self._opened[blob.digest] = opened
        idle = [digest for digest, each in self._opened.items() if each.idle and each is not opened]
        for digest in idle[: max(0, len(self._opened) - OPEN_BLOBS)]:
            self._opened.pop(digest).retire()
        return opened

    async def _open_on_disk(self, blob: Blob, opened: OpenBlob) -> None:
        waiting, token = current_waiter(), trio.lowlevel.current_trio_token()
        end = trio.current_time() + self._patience

        def progress() -> None:
            if waiting is not None:
                token.run_sync_soon(waiting.progress)

        def attempt() -> None:
            open_files(self._disk, blob, opened, progress, regardless=regardless)

        while True:
            regardless = trio.current_time() >= end
            try:
                await in_thread(attempt)
            except BlockingIOError:
                note_progress()
                await trio.sleep(_OTHERS)
            else:
                break
        if opened.damaged:
            self._disk.report(
                f"{blob.digest} is damaged on the cache's disk, and is fetched again where it is"
            )

    async def _need(self, blob: Blob, opened: OpenBlob, wanted: range, toward: int) -> None:
        """Wait until these bytes may be served."""
        partial = opened.files
        reader = opened.ahead.stream(wanted.start, len(wanted), toward)
        others = OtherProcess(self._patience)
        whole = self._settings.cache.verify_full
        first, last = (
            (0, partial.blocks) if whole else (wanted.start // BLOCK, -(-wanted.stop // BLOCK))
        )
        damages = 0
        while not opened.verified:
            if not partial.is_trusted(first, last):
                await in_thread(partial.check, first, last)
            missing = partial.first_missing(first, last)
            if missing is None:
                if not partial.is_trusted(
                    first, last
                ):  # another process has just written it, or is about to
                    if not await others.wait_for_trust(opened):
                        await in_thread(partial.disown, first, last)
                    continue
                if not partial.is_complete():
                    self._fetches.look_ahead(blob, opened, last, reader)
                    return
                if await self._verify(blob, opened):
                    return
                damages += 1
                if damages >= _REPAIRS:
                    raise CacheFailed(
                        f"{blob.digest} is damaged on the cache's disk again and again"
                    )
                continue
            await self._wait(blob, opened, range(missing, last), reader, others)

    async def _wait(
        self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState, others: OtherProcess
    ) -> None:
        """Wait for the first of these blocks, which is missing, or for what happens before it is
        there. Raises the fetch's error.
        """
        missing = wanted.start
        fetch = next((each for each in opened.fetches if each.start <= missing < each.stop), None)
        if fetch is None:
            fetch = self._fetches.start(blob, opened, wanted, reader)
        if fetch is None:
            if not others.has_left(opened, missing) and await others.wait(opened, missing):
                return
            fetch = self._fetches.take_over(blob, opened, wanted, reader)
        note_waiting_for(self._host)
        with fetch.waited_for():
            await opened.changed.wait()
        note_progress()
        if fetch.error is None or opened.verified or opened.files.has(missing):
            return
        if opened.damaged and not isinstance(fetch.error, CacheFull | CacheFailed):
            raise IntegrityError(
                f"{blob.digest} is damaged on the cache's disk, and cannot be fetched again: {fetch.error}"
            )
        raise fetch.error

    async def _verify(self, blob: Blob, opened: OpenBlob) -> bool:
        """Check the whole, once in all processes that have it open.

        False: blocks were found damaged and are missing.
        """
        async with opened.verifying:
            if opened.retired:
                raise opened.wrong or IntegrityError(
                    f"{blob.digest} was just found to have other content, and dropped"
                )
            if opened.verified:
                return True
            partial = opened.files
            if not await may_verify(partial, self._patience):
                # another process did: from now on what is read is compared with its checksums
                opened.verified = True
                self._nursery.start_soon(
                    guarded, "caching a blob", self._place, opened
                )  # it may have been killed since
                return True
            try:
                if not await in_thread(partial.check_and_verify):
                    return False
            except IntegrityError as error:
                elsewhere = self._source.report_corrupt(blob.digest)
                opened.wrong = _Elsewhere(str(error)) if elsewhere and not opened.served else error
                self._opened.pop(blob.digest, None)
                opened.retire()
                raise opened.wrong from None
            finally:
                partial.map.unlock_header()
            opened.verified = True
            if opened.damaged:
                opened.damaged = False
                self._disk.report(
                    f"{blob.digest} was fetched again where it was damaged, and is whole"
                )
            self._nursery.start_soon(guarded, "caching a blob", self._place, opened)
            return True

    async def _place(self, opened: OpenBlob) -> None:
        """Move a verified blob to its place.

        No reader waits for it, and it may fail: the next mount does it again.
        """
        with (
            opened.used(),
            trio.CancelScope(shield=True),
        ):  # a command that has read all ends at once
            await in_thread(opened.files.place)
