"""Fetches of missing blocks, which run in the store's nursery, so that a reader who leaves takes
nothing from the others.

Called in the event loop by `CachedBlobs`, with blobs that are open. Writing and hashing happen in
worker threads.

Rules that hold here:
- one fetch at a time brings a block, in all processes; a span that another process holds without
  progress is taken over whole;
- a fetch that fails is an error for the readers that wait for it, once, and never ends its nursery;
- a fetch ends when its last reader has left (`Fetch.scope`).
"""

from __future__ import annotations

import functools
import logging

import trio

from ocifs.concurrency import guarded, in_thread, ungrouped
from ocifs.content import Blob, BlobSource
from ocifs.errors import CacheFailed, IntegrityError, OcifsError, Unreachable
from ocifs.settings import MIB, Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.open_blob import Fetch, OpenBlob
from ocifs.store.blobs.readahead import ReaderState, SourceSpeed
from ocifs.store.blobs.transfer import Pieces, carry
from ocifs.store.disk import Disk, disk_error

log = logging.getLogger("ocifs.store")

OFFLINE = (
    "the registry is not asked, since --offline was given, and the cache does not have all of this"
)
_RESUMES = 3  # times that a fetch resumes after a connection was lost without a byte in between


class Fetches:
    """Starts fetches and runs them. One for the blobs of one source."""

    def __init__(
        self, source: BlobSource, disk: Disk, nursery: trio.Nursery, settings: Settings
    ) -> None:
        self._source = source
        self._disk = disk
        self._nursery = nursery
        self._offline = settings.cache.offline
        self._speed = SourceSpeed()

    def start(
        self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState
    ) -> Fetch | None:
        """Fetch for a reader, whose first block is missing.

        None where another process holds that block.
        """
        fetch = self._start(
            blob, opened, wanted.start, max(wanted.stop, wanted.start + -(-reader.window // BLOCK))
        )
        if fetch is not None:
            reader.grow(self._speed.worth)
        return fetch

    def look_ahead(self, blob: Blob, opened: OpenBlob, after: int, reader: ReaderState) -> None:
        """Fetch for a sequential reader, before it has to wait."""
        partial = opened.files
        if reader.window < MIB or len(opened.fetches) > 1:
            return
        end = min(partial.blocks, after + reader.window // BLOCK // 2)
        missing = partial.first_missing(after, end)
        while missing is not None:
            under_way = next(
                (each for each in opened.fetches if each.start <= missing < each.stop), None
            )
            if under_way is None:
                if self._start(blob, opened, missing, missing + reader.window // BLOCK) is not None:
                    reader.grow(self._speed.worth)
                return
            missing = partial.first_missing(under_way.stop, end)

    def take_over(self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState) -> Fetch:
        """The same where another process holds that block and does not fetch it: up to the end of
        what is held, or of the window.

        Two writers of one block write the same bytes, or its checksum fails.
        """
        missing = wanted.start
        stop = max(wanted.stop, missing + -(-reader.window // BLOCK))
        span = next(
            (each for each in opened.abandoned if each[0] <= missing < each[1]),
            (missing, missing + 1),
        )
        stop = min(
            stop,
            span[1],
            opened.files.blocks,
            *(each.start for each in opened.fetches if each.start > missing),
        )
        cached = opened.files.map.first_cached(missing, stop)
        reader.grow(self._speed.worth)
        return self._begin(
            blob, opened, Fetch(missing, stop if cached is None else cached, locked=False)
        )

    def _start(self, blob: Blob, opened: OpenBlob, start: int, stop: int) -> Fetch | None:
        """Fetch blocks from `start` until `stop`, or until one that is cached or on its way; None
        where another process holds the first.
        """
        partial = opened.files
        stop = min(
            stop, partial.blocks, *(each.start for each in opened.fetches if each.start > start)
        )
        stop = partial.map.lock(start, stop)
        cached = partial.map.first_cached(start, stop)  # now that no other process adds any
        end = stop if cached is None else cached
        partial.map.unlock(end, stop)
        return self._begin(blob, opened, Fetch(start, end)) if start < end else None

    def _begin(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> Fetch:
        opened.fetches.append(fetch)
        self._nursery.start_soon(guarded, "fetching a blob", self._fetch, blob, opened, fetch)
        return fetch

    async def _fetch(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
        with opened.used():
            try:
                with fetch.scope:
                    await self._transfer(blob, opened, fetch)
            except OcifsError as error:
                fetch.error = error
            except OSError as error:
                fetch.error = disk_error(error, self._disk.partial(blob.digest))
            except Exception as error:
                log.exception("unexpected error while %s was fetched", blob.digest)
                fetch.error = CacheFailed(
                    f"cannot fetch {blob.digest}: {type(error).__name__}: {error}"
                )
            finally:
                opened.fetches.remove(fetch)
                if fetch.locked:
                    opened.files.map.unlock(fetch.start, fetch.stop)
                opened.announce()

    async def _transfer(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
        """Fetch the blocks, and resume after a lost connection as long as each try brings
        something.
        """
        partial = opened.files
        if self._offline:
            raise Unreachable(OFFLINE)
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
                        await carry(
                            blob, stream, functools.partial(self._write, opened), self._disk.batches
                        )
                    self._speed.note(
                        answered - asked, stop - missing * BLOCK, trio.current_time() - answered
                    )
            except Unreachable:
                failures = 0 if partial.has(missing) else failures + 1
                if failures >= _RESUMES:
                    raise
            except IntegrityError:
                if not self._source.report_corrupt(blob.digest):
                    raise
            else:
                if not partial.has(missing) and not self._source.report_corrupt(blob.digest):
                    raise IntegrityError(f"{blob.digest} came to an end before its size")

    async def _write(self, opened: OpenBlob, position: int, run: Pieces) -> None:
        await in_thread(opened.files.write, position, run)
        opened.announce()
        if not opened.hashing and opened.files.hash_lags():
            opened.hashing = True
            self._nursery.start_soon(guarded, "hashing a blob", self._hash, opened)

    async def _hash(self, opened: OpenBlob) -> None:
        """Hash what came out of order behind the writer, so that little is left to do after the
        last byte.
        """
        with opened.used():
            try:
                while await in_thread(opened.files.hash_on):
                    pass
            finally:
                opened.hashing = False
