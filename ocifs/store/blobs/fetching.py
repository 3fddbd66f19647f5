"""Runs fetches of missing blocks.

A fetch is a task in the nursery of the store, so a reader that leaves does not end a fetch that
others wait for.

Started in the event loop by `Fetches`. Writing and hashing happen in worker threads.

- A fetch that fails is an error for the readers that wait for it, once. It never ends the nursery.
- A fetch is cancelled after its last reader has left (`Fetch.scope`).
- A lost connection is resumed, as long as each attempt fetches something. Requests themselves are
  retried below this layer, in the registry client.
- A server that ignores ranges sends the whole blob. Only one such stream of a blob is read, and the
  other fetches wait for its blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from ocifs.concurrency import guarded, in_thread, ungrouped
from ocifs.content import Blob, BlobSource, BlobStream
from ocifs.errors import CacheFailed, IntegrityError, OcifsError, Unreachable
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.bulk import BulkTransfers
from ocifs.store.blobs.open_blob import Fetch, OpenBlob
from ocifs.store.blobs.readahead import SourceSpeed
from ocifs.store.blobs.transfer import Pieces, carry
from ocifs.store.disk import Disk, disk_error

log = logging.getLogger("ocifs.store")

OFFLINE = "not in the cache, and --offline prevents requests"
AHEAD_PAUSE = 1.0  # seconds after a failure in which nothing is fetched ahead
_RESUMES = 3  # lost connections in a row without a new block


@dataclass(frozen=True, slots=True)
class FetchTask:
    """A fetch with its blob. `advance` is called when blocks have arrived, and at the end."""

    blob: Blob
    opened: OpenBlob
    fetch: Fetch
    advance: Callable[[], None]


class FetchRunner:
    """Runs the fetches of one source."""

    def __init__(
        self,
        source: BlobSource,
        disk: Disk,
        nursery: trio.Nursery,
        bulk: BulkTransfers,
        offline: bool,
    ) -> None:
        self.speed = SourceSpeed()
        self._source = source
        self._disk = disk
        self._nursery = nursery
        self._bulk = bulk
        self._offline = offline
        self._hashing: set[OpenBlob] = set()

    async def run(self, task: FetchTask) -> None:
        """Fetch the blocks. An error is stored in the fetch."""
        fetch, opened = task.fetch, task.opened
        is_complete = False
        try:
            with fetch.scope:
                await self._transfer(task)
                is_complete = True
        except OcifsError as error:
            fetch.error = error
        except OSError as error:
            fetch.error = disk_error(error, self._disk.partial(opened.digest))
        except Exception as error:
            log.exception("unexpected error while %s was fetched", opened.digest)
            fetch.error = CacheFailed(
                f"cannot fetch {opened.digest}: {type(error).__name__}: {error}"
            )
        finally:
            opened.fetches.remove(fetch)
            self._bulk.ended(opened, fetch, trio.current_time())
            # The lock is released before the readers wake: one that still misses a block starts
            # a fetch of its own at once.
            if fetch.locked:
                opened.blocks.map.unlock(fetch.start, fetch.stop)
            opened.announce()
            if fetch.error is not None:
                opened.ahead_paused_until = trio.current_time() + AHEAD_PAUSE
            # Not after a cancellation: the next fetch would be cancelled as well, and so on.
            elif is_complete:
                task.advance()
            opened.release()

    async def _transfer(self, task: FetchTask) -> None:
        """Fetch the blocks, and resume after a lost connection."""
        opened, blocks = task.opened, task.opened.blocks
        if self._offline:
            raise Unreachable(OFFLINE)
        failures = 0
        while (missing := self._next_missing(task)) is not None:
            if opened.whole_stream is not None:
                # Its own readers may have left, and it must not end while this fetch needs it.
                with opened.whole_stream.waited_for():
                    await opened.changed.wait()
                continue
            reports = opened.reports
            try:
                # The nursery of `carry` raises groups, which the clauses below would not match.
                with ungrouped():
                    await self._request(task, missing * BLOCK)
            except Unreachable:
                self._bulk.count.lost(trio.current_time())
                failures = 0 if blocks.has(missing) else failures + 1
                if failures >= _RESUMES:
                    raise
            except IntegrityError:
                # True: another endpoint may have the right content, and the loop requests the rest.
                if not self._report_corrupt(opened, reports):
                    raise
            else:
                # The stream ended without an error and without the first block that was requested.
                if not (
                    self._next_missing(task) != missing
                    or opened.whole_stream is not None
                    or self._report_corrupt(opened, reports)
                ):
                    early = IntegrityError(f"the content of {opened.digest} ended before its size")
                    early.is_transient = True
                    raise early

    @staticmethod
    def _next_missing(task: FetchTask) -> int | None:
        """The first block to request."""
        fetch, blocks = task.fetch, task.opened.blocks
        # Written content may have been read and forgotten since.
        written = fetch.written // BLOCK if blocks.forgets else 0
        return blocks.first_missing(max(fetch.start, written), fetch.stop)

    def _report_corrupt(self, opened: OpenBlob, reports: int) -> bool:
        """Report corrupt content; True if it may be fetched elsewhere.

        `reports` were made before it was requested. If another fetch of the blob has reported the
        same endpoint since, there is no new one to report.
        """
        if opened.reports == reports:
            if not self._source.report_corrupt(opened.digest):
                return False
            opened.reports += 1
        return True

    async def _request(self, task: FetchTask, start: int) -> None:
        """Fetch the bytes from `start` with one request, as far as they come."""
        fetch, blob = task.fetch, task.blob
        stop = min(fetch.stop * BLOCK, blob.size)
        requested = trio.current_time()

        async def write(position: int, batch: Pieces) -> None:
            await self._write(task, position, batch)

        async with self._source.open_blob(blob, start, stop) as stream:
            answered = trio.current_time()
            arrived = self._bulk.receive(fetch, answered - requested)
            with _whole(task, stream, range(start, stop)) as is_needed:
                if not is_needed:
                    return
                await carry(blob, stream, write, self._disk.batches, arrived)
        self.speed.note(answered - requested, stop - start, trio.current_time() - answered)

    async def _write(self, task: FetchTask, position: int, batch: Pieces) -> None:
        opened = task.opened
        await in_thread(opened.blocks.write, position, batch)
        task.fetch.written = position + sum(map(len, batch))
        opened.announce()
        task.advance()
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


@contextmanager
def _whole(task: FetchTask, stream: BlobStream, wanted: range) -> Iterator[bool]:
    """Record a stream of the whole blob in answer to a range.

    False: another one is under way already, so this one is not read.
    """
    opened = task.opened
    is_range = stream.start == wanted.start and stream.stop == wanted.stop
    if is_range or stream.start > 0:
        yield True
    elif opened.whole_stream is not None:
        yield False
    else:
        opened.whole_stream = task.fetch
        try:
            yield True
        finally:
            opened.whole_stream = None
