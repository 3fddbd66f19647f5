"""Verified, shared, kept reads of any source of blobs.

A read waits for the blocks that it needs and nothing else; fetches run in the store's nursery, so that a reader who leaves takes nothing
from the others, and each byte is fetched once however many read it.

Rules that hold here: as soon as every block of a blob is here, nothing more of it is served until the whole was checked against its
digest; with `verify_full`, nothing before that; what was wrong is fetched once more from elsewhere, where there is an elsewhere and nobody
has seen any of it; a fetch that fails is an error for those who wait for its blocks, once; disk is written
and hashed in worker threads, while the event loop only moves pieces.
"""

from __future__ import annotations

import functools
import logging
from contextlib import suppress

import trio

from ocifs.concurrency import note_progress, ungrouped
from ocifs.content import Blob, BlobSource
from ocifs.errors import CacheFull, IntegrityError, OcifsError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Settings
from ocifs.store.blockmap import BLOCK
from ocifs.store.disk import Disk
from ocifs.store.neighbour import MOMENT, Neighbour, may_verify
from ocifs.store.opened import Fetch, OpenBlob, open_files
from ocifs.store.partial import Partial
from ocifs.store.readahead import Pace, Stream
from ocifs.store.spare import Spare
from ocifs.store.transfer import Pieces, carry

log = logging.getLogger("ocifs.store")

OPEN_BLOBS = 256  # two or three file descriptors each
_MENDINGS = 3  # times that one read finds what it reads damaged
_OFFLINE = "the registry is not asked, since --offline was given, and the cache does not have all of this"
_RESUMES = 3  # times that a fetch goes on after a connection was lost without a byte in between


class _Elsewhere(IntegrityError):
    """What came was wrong, nobody has seen any of it, and there is somebody else to ask."""


class CachedBlobs:
    """A BlobReader over a BlobSource, which keeps what it reads."""

    def __init__(self, source: BlobSource, disk: Disk, nursery: trio.Nursery, settings: Settings) -> None:
        self._source = source
        self._disk = disk
        self._nursery = nursery
        self._settings = settings
        self._opened: dict[Digest, OpenBlob] = {}  # the one used last is last
        self._opening = trio.Lock()
        self._pace = Pace()
        self._held: dict[Digest, int] = {}
        self._spare = Spare(settings.cache.memory_bytes)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """The registry is asked first, also for what is here: who may not read a blob must not learn that somebody else did."""
        outage = Unreachable(_OFFLINE)
        if not self._settings.cache.offline:
            try:
                return await self._source.blob_size(repository, digest)
            except Unreachable as error:
                outage = error
        try:
            return (await trio.to_thread.run_sync(self._disk.whole(digest).stat)).st_size
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
            spilled = blob.digest in self._spare.spilled
            try:
                with suppress(_Elsewhere):
                    return await self._read(blob, range(offset, offset + length), toward)
            except CacheFull:
                failures += 1
                if failures > 2:
                    raise
                if spilled:
                    self.tend(0)  # memory is full, too: what nobody has open goes
                elif blob.digest not in self._spare.spilled:
                    self._spare.spill(blob.digest)
                    if opened := self._opened.pop(blob.digest, None):
                        opened.retire()

    async def _read(self, blob: Blob, wanted: range, toward: int) -> bytes:
        opened = self._opened.get(blob.digest) or await self._open(blob)
        if opened.size != blob.size:
            raise IntegrityError(f"{blob.digest} is said to have {blob.size} bytes here and {opened.size} elsewhere")
        with opened.used():
            for _ in range(_MENDINGS):
                if not opened.verified:
                    await self._need(blob, opened, wanted, toward)
                if not opened.verified:
                    opened.served = True
                content = await opened.read(wanted.start, len(wanted))
                if content is not None:
                    return content
                await self._mistrust(blob, opened)
        raise IntegrityError(f"{blob.digest} is damaged on the cache's disk again and again")

    async def _mistrust(self, blob: Blob, opened: OpenBlob) -> None:
        """A block is not what it was when it was written: bring such blocks again, and verify again a whole that was verified."""
        async with opened.verifying:
            if opened.partial is not None:
                opened.damaged |= opened.verified
                opened.verified = False
                self._disk.report(f"{blob.digest} is damaged on the cache's disk, and is fetched again where it is")
                await trio.to_thread.run_sync(opened.partial.mistrust)

    def hold(self, digest: Digest) -> None:
        self._held[digest] = self._held.get(digest, 0) + 1

    def let_go(self, digest: Digest) -> None:
        left = self._held.pop(digest, 0) - 1
        if left > 0:
            self._held[digest] = left

    def tend(self, idle: float) -> None:
        """Note on disk what was used, and let go of the files of what nobody has open or has read for `idle` seconds."""
        now = trio.current_time()
        for digest, opened in list(self._opened.items()):
            if opened.idle and now - opened.last_used >= idle and digest not in self._held:
                self._opened.pop(digest).retire()
            else:
                opened.note_use(held=digest in self._held)

    async def _open(self, blob: Blob) -> OpenBlob:
        async with self._opening:
            opened = self._opened.pop(blob.digest, None)
            if opened is None:
                opened = OpenBlob(blob)
                await trio.to_thread.run_sync(self._open_files, blob, opened)
            self._opened[blob.digest] = opened
            idle = [digest for digest, other in self._opened.items() if other.idle and other is not opened]
            for digest in idle[: max(0, len(self._opened) - OPEN_BLOBS)]:
                self._opened.pop(digest).retire()
            return opened

    def _open_files(self, blob: Blob, opened: OpenBlob) -> None:
        if blob.digest in self._spare.spilled:
            self._spare.open(opened, blob.digest)
        else:
            open_files(self._disk, blob, opened)

    async def _need(self, blob: Blob, opened: OpenBlob, wanted: range, toward: int) -> None:
        """Wait until these bytes may be served."""
        partial = opened.partial
        assert partial is not None
        reads = opened.ahead.stream(wanted.start, len(wanted), toward)
        others = Neighbour(self._settings.timing.stall_timeout)
        first, last = (
            (0, partial.blocks)
            if self._settings.cache.verify_full
            else (wanted.start // BLOCK, -(-wanted.stop // BLOCK))
        )
        while not opened.verified:
            if not partial.is_trusted(first, last):
                await trio.to_thread.run_sync(partial.check, first, last)
            missing = partial.first_missing(first, last)
            if missing is None:
                if not partial.is_trusted(first, last):  # another process has just brought it, or is at it
                    await trio.sleep(MOMENT)
                    continue
                if not partial.is_complete():
                    self._look_ahead(blob, opened, last, reads)
                    return
                if await self._verify(blob, opened):
                    return
                continue
            fetch = next((each for each in opened.fetches if each.start <= missing < each.stop), None)
            if fetch is None:
                fetch = self._start(blob, opened, missing, max(last, missing + -(-reads.window // BLOCK)))
                if fetch is not None:
                    reads.grow(self._pace.worth)
                elif await others.wait(opened, missing):
                    continue
                else:
                    log.info("another process holds block %d of %s and brings nothing", missing, blob.digest)
                    fetch = self._begin(blob, opened, Fetch(missing, missing + 1, locked=False))
            await opened.changed.wait()
            note_progress()
            if fetch.error is not None and not opened.verified and not partial.has(missing):
                if opened.damaged:
                    raise IntegrityError(
                        f"{blob.digest} is damaged on the cache's disk, and cannot be fetched again: {fetch.error}"
                    )
                raise fetch.error

    def _look_ahead(self, blob: Blob, opened: OpenBlob, after: int, reads: Stream) -> None:
        """Fetch for a reader who reads on, before it has to wait."""
        partial = opened.partial
        assert partial is not None
        if reads.window < MIB or len(opened.fetches) > 1:
            return
        end = min(partial.blocks, after + reads.window // BLOCK // 2)
        missing = partial.first_missing(after, end)
        while missing is not None:
            under_way = next((each for each in opened.fetches if each.start <= missing < each.stop), None)
            if under_way is None:
                if self._start(blob, opened, missing, missing + reads.window // BLOCK) is not None:
                    reads.grow(self._pace.worth)
                return
            missing = partial.first_missing(under_way.stop, end)

    def _start(self, blob: Blob, opened: OpenBlob, start: int, stop: int) -> Fetch | None:
        """Fetch blocks from `start` until `stop`, or until one that is here or on its way; None where another process is at the first.

        Two writers of one block write the same bytes, or its checksum fails.
        """
        partial = opened.partial
        assert partial is not None
        stop = min(stop, partial.blocks, *(each.start for each in opened.fetches if each.start > start))
        stop = partial.map.lock(start, stop)
        end = next((block for block in range(start, stop) if partial.has(block)), stop)  # now that nobody else adds any
        partial.map.unlock(end, stop)
        return self._begin(blob, opened, Fetch(start, end)) if start < end else None

    def _begin(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> Fetch:
        opened.fetches.append(fetch)
        self._nursery.start_soon(self._fetch, blob, opened, fetch)
        return fetch

    async def _fetch(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
        with opened.used():
            try:
                await self._transfer(blob, opened, fetch)
            except OcifsError as error:
                fetch.error = error
            finally:
                opened.fetches.remove(fetch)
                if fetch.locked and opened.partial is not None:
                    opened.partial.map.unlock(fetch.start, fetch.stop)
                opened.announce()

    async def _transfer(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
        """Bring the blocks of a fetch, going on after a lost connection as long as each try brings something."""
        partial = opened.partial
        assert partial is not None
        if self._settings.cache.offline:
            raise Unreachable(_OFFLINE)
        failures = 0
        while True:
            missing = partial.first_missing(fetch.start, fetch.stop)
            if missing is None:
                return
            try:
                with ungrouped():
                    stop = min(fetch.stop * BLOCK, blob.size)
                    asked = trio.current_time()
                    async with self._source.open_blob(blob, missing * BLOCK, stop) as stream:
                        answered = trio.current_time()
                        await carry(blob, stream, functools.partial(self._write, opened))
                    self._pace.note(answered - asked, stop - missing * BLOCK, trio.current_time() - answered)
            except Unreachable:
                failures = 0 if partial.has(missing) else failures + 1
                if failures >= _RESUMES:
                    raise
            except IntegrityError:
                if not self._source.distrust(blob.digest):
                    raise
            else:
                if not partial.has(missing) and not self._source.distrust(blob.digest):
                    raise IntegrityError(f"{blob.digest} came to an end before its size")

    async def _write(self, opened: OpenBlob, position: int, run: Pieces) -> None:
        partial = opened.partial
        assert partial is not None
        await trio.to_thread.run_sync(partial.write, position, run)
        opened.announce()
        if not opened.hashing and partial.hash_lags():
            opened.hashing = True
            self._nursery.start_soon(self._hash, opened, partial)

    async def _hash(self, opened: OpenBlob, partial: Partial) -> None:
        """Hash what came out of order behind the writer, so that little is left to do when the last byte is here."""
        with opened.used():
            try:
                while await trio.to_thread.run_sync(partial.hash_on):
                    pass
            finally:
                opened.hashing = False

    async def _verify(self, blob: Blob, opened: OpenBlob) -> bool:
        """Check the whole, once in all processes that have it open. False: blocks were found damaged and are missing."""
        async with opened.verifying:
            if opened.retired:
                raise opened.wrong or IntegrityError(f"{blob.digest} was just found to have other content, and dropped")
            if opened.verified:
                return True
            partial = opened.partial
            assert partial is not None
            if not await may_verify(partial, self._settings.timing.stall_timeout):
                opened.verified = True  # another process did: from now on what is read is held against its checksums
                self._nursery.start_soon(self._place, opened, partial)  # it may have been killed since
                return True
            try:
                if not await trio.to_thread.run_sync(partial.check_and_verify):
                    return False
            except IntegrityError as error:
                elsewhere = self._source.distrust(blob.digest)
                opened.wrong = _Elsewhere(str(error)) if elsewhere and not opened.served else error
                self._opened.pop(blob.digest, None)
                opened.retire()
                raise opened.wrong from None
            finally:
                partial.map.leave_header()
            opened.verified = True
            if opened.damaged:
                opened.damaged = False
                self._disk.report(f"{blob.digest} was fetched again where it was damaged, and is whole")
            self._nursery.start_soon(self._place, opened, partial)
            return True

    async def _place(self, opened: OpenBlob, partial: Partial) -> None:
        """Bring a verified blob to the disk and to its place. No reader waits for it, and it may fail: the next mount does it again."""
        with opened.used(), trio.CancelScope(shield=True):  # a command that has read all ends at once
            try:
                await trio.to_thread.run_sync(partial.place)
            except OcifsError as error:
                log.warning("a blob could not be kept: %s", error)
