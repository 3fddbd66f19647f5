"""Fetches of missing blocks. They run in the nursery of the store, so a reader that leaves does not
end a fetch that others wait for.

Called in the event loop by `CachedBlobs`, with open blobs. Writing and hashing happen in worker
threads.

- A block is fetched once at a time, in all processes. A span that another process has locked
  without making progress is taken over, also if that process resumes later.
- A fetch that fails is an error for the readers that wait for it, once. It never ends the nursery.
- A fetch is cancelled after its last reader has left (`Fetch.scope`).
- A lost connection is resumed, as long as each attempt fetches something. Requests themselves are
  retried below this layer, in the registry client.
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

OFFLINE = "not in the cache, and --offline prevents requests"
_RESUMES = 3  # lost connections in a row without a new block


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
        self._hashing: set[OpenBlob] = set()

    def start(
        self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState
    ) -> Fetch | None:
        """Fetch blocks for a reader. The first one is missing.

        None if another process has locked that block.
        """
        window = -(-reader.window // BLOCK)
        stop = max(wanted.stop, wanted.start + window)
        fetch = self._start(blob, opened, wanted.start, stop)
        if fetch is not None:
            reader.grow(self._speed.worth)
        return fetch

    def look_ahead(self, blob: Blob, opened: OpenBlob, after: int, reader: ReaderState) -> None:
        """Fetch the next window of a sequential reader before it has to wait for it."""
        blocks = opened.blocks
        # A small window belongs to a reader that has not read much in a row. A second fetch in
        # advance would only compete with the first one for the connection.
        if reader.window < MIB or len(opened.fetches) > 1:
            return
        end = min(blocks.count, after + reader.window // BLOCK // 2)
        missing = blocks.first_missing(after, end)
        while missing is not None:
            fetch = opened.fetch_of(missing)
            if fetch is None:
                window = reader.window // BLOCK
                if self._start(blob, opened, missing, missing + window) is not None:
                    reader.grow(self._speed.worth)
                return
            missing = blocks.first_missing(fetch.stop, end)

    def take_over(self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState) -> Fetch:
        """Fetch blocks that another process has locked and does not fetch: up to the end of the
        locked span, or of the window.

        Two writers of one block write equal bytes, or its checksum fails.
        """
        missing = wanted.start
        # All of the abandoned span is taken over at once, so that the read waits for the stalled
        # process only once.
        span = next(
            (span for span in opened.abandoned if span[0] <= missing < span[1]),
            (missing, missing + 1),
        )
        stop = min(
            max(wanted.stop, missing + -(-reader.window // BLOCK)),
            span[1],
            opened.blocks.count,
            *(fetch.start for fetch in opened.fetches if fetch.start > missing),
        )
        cached = opened.blocks.map.first_cached(missing, stop)
        reader.grow(self._speed.worth)
        return self._begin(
            blob, opened, Fetch(missing, stop if cached is None else cached, locked=False)
        )

    def _start(self, blob: Blob, opened: OpenBlob, start: int, stop: int) -> Fetch | None:
        """Fetch blocks from `start` to `stop`, or to the next one that is cached or being fetched.

        None if another process has locked the first.
        """
        blocks = opened.blocks
        stop = min(
            stop, blocks.count, *(fetch.start for fetch in opened.fetches if fetch.start > start)
        )
        stop = blocks.map.lock(start, stop)
        # With the lock held, no other process adds blocks.
        cached = blocks.map.first_cached(start, stop)
        end = stop if cached is None else cached
        blocks.map.unlock(end, stop)
        return self._begin(blob, opened, Fetch(start, end)) if start < end else None

    def _begin(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> Fetch:
        # The files are held from here on, not from the first step of the task: the reader may leave
        # before that, and the blob may be retired.
        opened.fetches.append(fetch)
        opened.acquire()
        self._nursery.start_soon(guarded, "fetching a blob", self._fetch, blob, opened, fetch)
        return fetch

    async def _fetch(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
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
            # The lock is released before the readers wake: one that still misses a block starts
            # a fetch of its own at once.
            if fetch.locked:
                opened.blocks.map.unlock(fetch.start, fetch.stop)
            opened.announce()
            opened.release()

    async def _transfer(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
        """Fetch the blocks, and resume after a lost connection."""
        blocks = opened.blocks
        if self._offline:
            raise Unreachable(OFFLINE)
        failures = 0
        while True:
            missing = blocks.first_missing(fetch.start, fetch.stop)
            if missing is None:
                return
            try:
                # The nursery of `carry` raises groups, which the clauses below would not match.
                with ungrouped():
                    await self._request(blob, opened, missing * BLOCK, fetch.stop * BLOCK)
            except Unreachable:
                failures = 0 if blocks.has(missing) else failures + 1
                if failures >= _RESUMES:
                    raise
            except IntegrityError:
                # True: another endpoint may have the right content, and the loop requests the rest.
                if not self._source.report_corrupt(blob.digest):
                    raise
            else:
                # The stream ended without an error and without the first block that was requested.
                if not blocks.has(missing) and not self._source.report_corrupt(blob.digest):
                    early = IntegrityError(f"the content of {blob.digest} ended before its size")
                    early.is_transient = True
                    raise early

    async def _request(self, blob: Blob, opened: OpenBlob, start: int, stop: int) -> None:
        """Fetch bytes [start, stop) with one request, as far as they come."""
        stop = min(stop, blob.size)
        requested = trio.current_time()
        async with self._source.open_blob(blob, start, stop) as stream:
            answered = trio.current_time()
            write = functools.partial(self._write, opened)
            await carry(blob, stream, write, self._disk.batches)
        self._speed.note(answered - requested, stop - start, trio.current_time() - answered)

    async def _write(self, opened: OpenBlob, position: int, batch: Pieces) -> None:
        await in_thread(opened.blocks.write, position, batch)
        opened.announce()
        if opened not in self._hashing and opened.blocks.hash_lags():
            self._hashing.add(opened)
            opened.acquire()
            self._nursery.start_soon(guarded, "hashing a blob", self._hash, opened)

    async def _hash(self, opened: OpenBlob) -> None:
        """Hash blocks that arrived out of order while others are fetched, so that little is left to
        hash after the last byte.
        """
        try:
            while await in_thread(opened.blocks.hash_on):
                pass
        finally:
            self._hashing.remove(opened)
            opened.release()
