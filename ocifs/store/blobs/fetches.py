"""Starts fetches of missing blocks, and selects the next ranges for each reader.

Called in the event loop by `CachedBlobs`, with open blobs. The fetches run in `fetching.py`.

- A block is fetched once at a time, in all processes. A span that another process has locked
  without making progress is taken over, also if that process resumes later.
- A missing block that a reader waits for is requested at once. Only readahead depends on the
  connections that are free (bulk.py).
- The next requests of a sequential reader are sent when it reads, when blocks arrive, and when a
  fetch ends. After its last reader has left, their deadline is that of the fetch before.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from math import inf

import trio

from ocifs.concurrency import guarded
from ocifs.content import Blob, BlobSource
from ocifs.settings import Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.bulk import BULK, BulkTransfers, Room, blocks_of
from ocifs.store.blobs.fetching import FetchRunner, FetchTask
from ocifs.store.blobs.open_blob import Fetch, OpenBlob
from ocifs.store.blobs.readahead import ReaderState
from ocifs.store.disk import Disk


class Fetches:
    """Starts fetches. One for the blobs of one source."""

    def __init__(
        self, source: BlobSource, disk: Disk, nursery: trio.Nursery, settings: Settings
    ) -> None:
        self._source = source
        self._nursery = nursery
        self._bulk = BulkTransfers(settings.network.connections)
        self._runner = FetchRunner(source, disk, nursery, self._bulk, settings.cache.offline)

    def start(
        self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState
    ) -> Fetch | None:
        """Fetch blocks for a reader. The first one is missing.

        None if another process has locked that block.
        """
        reader.waits_at = wanted.start * BLOCK
        window = min(reader.window, opened.blocks.most_ahead)
        stop = max(wanted.stop, wanted.start + blocks_of(window))
        owner = None
        if (stop - wanted.start) * BLOCK >= BULK:
            if self._bulk.is_full:
                stop = wanted.start + blocks_of(BULK // 2)
            else:
                owner = reader
                room = self._room(opened, reader, wanted.start)
                end = stop * BLOCK if room.share == 1 else max(room.stop, stop * BLOCK)
                room = replace(room, stop=end, is_last=True)
                size = self._bulk.request_size(room, trio.current_time())
                stop = wanted.start + blocks_of(size)
        fetch = self._start(blob, opened, range(wanted.start, stop), owner)
        if fetch is not None:
            reader.grow(self._runner.speed.worth)
        return fetch

    def look_ahead(
        self, blob: Blob, opened: OpenBlob, reader: ReaderState, deadline: float = inf
    ) -> None:
        """Fetch the next windows of a sequential reader before it has to wait for them.

        `deadline`: when these fetches end if the blob is not read any longer.
        """
        now = trio.current_time()
        if self._source.is_strained():
            self._bulk.count.strained(now)
        # After a failure, only the blocks that a reader needs are requested.
        if opened.whole_stream is not None or now < opened.ahead_paused_until:
            return
        while (wanted := self._next(opened, reader, now)) is not None:
            fetch = self._start(blob, opened, wanted, reader)
            if fetch is None:
                return
            reader.grow(self._runner.speed.worth)
            fetch.scope.deadline = min(fetch.scope.deadline, deadline)

    def _next(self, opened: OpenBlob, reader: ReaderState, now: float) -> range | None:
        """The blocks to request next, ahead of a reader."""
        fetches = [fetch for fetch in opened.fetches if fetch.reader is reader]
        room = self._room(opened, reader, reader.position // BLOCK)
        # A small window belongs to a reader that has not read much in a row.
        if room.ahead < BULK or self._bulk.is_full:
            return None
        if room.share > 1:
            if len(fetches) >= room.share:
                return None
        elif self._bulk.count.is_settled(now):
            # A second fetch in advance would only compete with the first one for the connection.
            if len(opened.fetches) > 1:
                return None
            room = replace(room, stop=reader.position + room.ahead // 2)
        # The next request is sent so early that its answer begins when the last byte has arrived.
        # An earlier one would take a part of the pace.
        elif any(fetch.left > max(self._runner.speed.worth, 2 * BLOCK) for fetch in fetches):
            return None
        missing = self._first_free(opened, room.start // BLOCK, blocks_of(room.stop))
        if missing is None:
            return None
        if room.share == 1:
            room = replace(room, stop=missing * BLOCK + room.ahead)
        size = self._bulk.request_size(replace(room, start=missing * BLOCK), now)
        return range(missing, missing + blocks_of(size)) if size > 0 else None

    def _room(self, opened: OpenBlob, reader: ReaderState, start: int) -> Room:
        share = self._bulk.share(opened, reader)
        ahead = min(self._bulk.ahead(reader, share), opened.blocks.most_ahead)
        end = min(opened.size, reader.toward or opened.size)
        stop = min(end, reader.position + ahead)
        pending = sum(fetch.left for fetch in opened.fetches if fetch.reader is reader)
        return Room(share, start * BLOCK, stop, pending, ahead, is_last=stop == end)

    @staticmethod
    def _first_free(opened: OpenBlob, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is missing and is not being fetched."""
        missing = opened.blocks.first_missing(start, stop)
        while missing is not None and (fetch := opened.fetch_of(missing)) is not None:
            missing = opened.blocks.first_missing(fetch.stop, stop)
        return missing

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
        reader.grow(self._runner.speed.worth)
        return self._begin(
            blob, opened, Fetch(missing, stop if cached is None else cached, locked=False)
        )

    def _start(
        self, blob: Blob, opened: OpenBlob, wanted: range, reader: ReaderState | None
    ) -> Fetch | None:
        """Fetch these blocks, up to the next one that is cached or being fetched.

        None if another process has locked the first. `reader`: the owner of a large transfer.
        """
        blocks, start = opened.blocks, wanted.start
        stop = min(
            wanted.stop,
            blocks.count,
            *(fetch.start for fetch in opened.fetches if fetch.start > start),
        )
        stop = blocks.map.lock(start, stop)
        # With the lock held, no other process adds blocks.
        cached = blocks.map.first_cached(start, stop)
        end = stop if cached is None else cached
        blocks.map.unlock(end, stop)
        if start >= end:
            return None
        return self._begin(blob, opened, Fetch(start, end, reader=reader))

    def _begin(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> Fetch:
        # The files are held from here on, not from the first step of the task: the reader may leave
        # before that, and the blob may be retired.
        opened.fetches.append(fetch)
        opened.acquire()
        self._bulk.began(opened, fetch, trio.current_time())
        task = FetchTask(blob, opened, fetch, functools.partial(self._advance, blob, opened, fetch))
        self._nursery.start_soon(guarded, "fetching a blob", self._runner.run, task)
        return fetch

    def _advance(self, blob: Blob, opened: OpenBlob, fetch: Fetch) -> None:
        """Blocks arrived, or the fetch is complete."""
        if fetch.reader is not None:
            self.look_ahead(blob, opened, fetch.reader, fetch.scope.deadline)
