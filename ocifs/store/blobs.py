"""Verified, shared, kept reads of any source of blobs.

A read waits for the blocks that it needs and nothing else; fetches run in the store's nursery, so that a reader who leaves takes nothing
from the others, and each byte is fetched once however many read it.

Rules that hold here: as soon as every block of a blob is here, nothing more of it is served until the whole was checked against its
digest; with `verify_full`, nothing before that; what was wrong is fetched once more from elsewhere, where there is an elsewhere and nobody
has seen any of it; a fetch that fails is an error for those who wait for its blocks, once; disk is written
and hashed in worker threads, while the event loop only moves pieces.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import suppress
from typing import TypeAlias

import trio

from ocifs.concurrency import note_progress, ungrouped
from ocifs.content import Blob, BlobSource, BlobStream
from ocifs.errors import CacheFull, IntegrityError, OcifsError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Settings
from ocifs.store.disk import Disk
from ocifs.store.opened import Fetch, OpenBlob, pread
from ocifs.store.partial import BLOCK, Partial
from ocifs.store.readahead import Stream
from ocifs.store.spare import Spare

log = logging.getLogger("ocifs.store")

Pieces: TypeAlias = list[bytes | memoryview]

OPEN_BLOBS = 256  # two file descriptors each while a blob is partial, one when it is whole
_RUN = 2 * MIB  # what goes to a worker thread at a time
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
        self._held: Counter[Digest] = Counter()
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

    async def read_blob(self, blob: Blob, offset: int, length: int) -> bytes:
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
                    return await self._read(blob, offset, length)
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

    async def _read(self, blob: Blob, offset: int, length: int) -> bytes:
        opened = self._opened.get(blob.digest) or await self._open(blob)
        if opened.size != blob.size:
            raise IntegrityError(f"{blob.digest} is said to have {blob.size} bytes here and {opened.size} elsewhere")
        with opened.used():
            if not opened.verified:
                await self._need(blob, opened, offset, length)
            if opened.whole is not None:
                return await pread(opened.whole, offset, length)
            assert opened.partial is not None
            opened.served = opened.served or not opened.verified
            return await pread(opened.partial.fd, offset, length)

    def hold(self, digest: Digest) -> None:
        self._held[digest] += 1

    def let_go(self, digest: Digest) -> None:
        self._held[digest] -= 1
        if self._held[digest] <= 0:
            del self._held[digest]

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
            return
        try:
            descriptor = self._disk.open_whole(blob.digest)
        except OSError:
            opened.partial = Partial(self._disk, blob.digest, blob.size)
            opened.served = not opened.partial.is_empty()  # who left it may have served it
            return
        size = os.fstat(descriptor).st_size
        if size != blob.size:
            os.close(descriptor)
            raise IntegrityError(f"{blob.digest} has {size} bytes, its descriptor says {blob.size}")
        opened.whole = descriptor
        opened.verified = True

    async def _need(self, blob: Blob, opened: OpenBlob, offset: int, length: int) -> None:
        """Wait until bytes [offset, offset+length) may be served."""
        partial = opened.partial
        assert partial is not None
        reads = opened.ahead.stream(offset, length)
        first, last = (
            (0, partial.blocks)
            if self._settings.cache.verify_full
            else (offset // BLOCK, -(-(offset + length) // BLOCK))
        )
        while not opened.verified:
            if not partial.is_trusted(first, last):
                await trio.to_thread.run_sync(partial.check, first, last)
            missing = partial.first_missing(first, last)
            if missing is None:
                if not partial.is_complete():
                    self._look_ahead(blob, opened, last, reads)
                    return
                if await self._verify(blob, opened):
                    return
                continue
            fetch = next((each for each in opened.fetches if each.start <= missing < each.stop), None)
            if fetch is None:
                fetch = self._start(blob, opened, missing, max(last, missing + reads.grow() // BLOCK))
            await opened.changed.wait()
            note_progress()
            if fetch.error is not None and not opened.verified and not partial.has(missing):
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
                self._start(blob, opened, missing, missing + reads.grow() // BLOCK)
                return
            missing = partial.first_missing(under_way.stop, end)

    def _start(self, blob: Blob, opened: OpenBlob, start: int, stop: int) -> Fetch:
        """Fetch blocks from `start` until `stop`, or until one that is here or on its way."""
        partial = opened.partial
        assert partial is not None
        stop = min(stop, partial.blocks, *(each.start for each in opened.fetches if each.start > start))
        stop = next((block for block in range(start + 1, stop) if partial.has(block)), stop)
        fetch = Fetch(start, stop)
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
                await self._stream(blob, opened, missing * BLOCK, min(fetch.stop * BLOCK, blob.size))
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

    async def _stream(self, blob: Blob, opened: OpenBlob, start: int, stop: int) -> None:
        """Bring bytes from one answer to the disk: one task moves pieces, a worker thread writes and hashes them."""
        with ungrouped():
            async with self._source.open_blob(blob, start, stop) as stream, trio.open_nursery() as nursery:
                if stream.total not in (None, blob.size) or stream.start % BLOCK:
                    raise IntegrityError(
                        f"{blob.digest} is served with {stream.total} bytes, its descriptor says {blob.size}"
                    )
                send, receive = trio.open_memory_channel[Pieces](1)
                nursery.start_soon(self._write, opened, stream.start, receive)
                async with send:
                    lost = await self._cut(blob, stream, send)
            if lost is not None:
                raise lost

    async def _cut(self, blob: Blob, stream: BlobStream, send: trio.MemorySendChannel[Pieces]) -> Unreachable | None:
        """Hand the pieces of a stream on in runs of whole blocks; what came before the connection was lost (returned) is kept."""
        pending: Pieces = []
        held = 0
        position = stream.start
        lost = None
        with suppress(trio.BrokenResourceError):  # the writer has failed, and its error is the one to tell
            try:
                async for piece in stream:
                    pending.append(piece)
                    held += len(piece)
                    position += len(piece)
                    if position > blob.size:
                        raise IntegrityError(f"{blob.digest} has more bytes than its descriptor says")
                    if held >= _RUN:
                        pending, held = await _send_blocks(pending, held, send)
            except Unreachable as error:
                lost = error
            if position == blob.size and pending:
                await send.send(pending)
            elif held >= BLOCK:
                await _send_blocks(pending, held, send)
        return lost

    async def _write(self, opened: OpenBlob, position: int, runs: trio.MemoryReceiveChannel[Pieces]) -> None:
        partial = opened.partial
        assert partial is not None
        async with runs:
            async for run in runs:
                await trio.to_thread.run_sync(partial.write, position, run)
                position += sum(map(len, run))
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
        """Check the whole once; from then on it is served without further questions. False: blocks were found damaged and are missing."""
        async with opened.verifying:
            if opened.retired:
                raise opened.wrong or IntegrityError(f"{blob.digest} was just found to have other content, and dropped")
            if opened.verified:
                return True
            partial = opened.partial
            assert partial is not None
            if not partial.is_trusted(0, partial.blocks):  # what an earlier process left may not have reached the disk
                await trio.to_thread.run_sync(partial.check, 0, partial.blocks)
                if not partial.is_complete():
                    return False
            try:
                await trio.to_thread.run_sync(partial.verify)
            except IntegrityError as error:
                elsewhere = self._source.distrust(blob.digest)
                opened.wrong = _Elsewhere(str(error)) if elsewhere and not opened.served else error
                self._opened.pop(blob.digest, None)
                opened.retire()
                raise opened.wrong from None
            opened.verified = True
            self._nursery.start_soon(self._place, opened, partial)
            return True

    async def _place(self, opened: OpenBlob, partial: Partial) -> None:
        """Bring a verified blob to the disk and to its place. No reader waits for it, and it may fail: the next mount does it again."""
        with opened.used(), trio.CancelScope(shield=True):  # a command that has read all ends at once
            try:
                await trio.to_thread.run_sync(partial.place)
            except OcifsError as error:
                log.warning("a blob could not be kept: %s", error)


async def _send_blocks(pending: Pieces, held: int, send: trio.MemorySendChannel[Pieces]) -> tuple[Pieces, int]:
    """Send the whole blocks of `held` pending bytes; what is left, and its length (less than a block)."""
    left = held % BLOCK
    rest: Pieces = []
    while left:
        last = memoryview(pending.pop())
        if len(last) > left:
            pending.append(last[:-left])
            last = last[-left:]
        rest.insert(0, last)
        left -= len(last)
    await send.send(pending)
    return rest, held % BLOCK
