"""Reads a blob ahead for a worker thread, which therefore rarely waits for the network.

`run` is a task of the event loop. A worker thread calls the other methods.

Rules:

- Few pieces wait in memory.
- The thread never waits for a piece that does not come: an error of `run`, or its end, is raised
  where the next piece would be taken.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import trio

from ocifs.concurrency import note_progress
from ocifs.content import Blob, BlobReader
from ocifs.errors import IntegrityError, Malformed
from ocifs.settings import MIB

_PIECE = 2 * MIB
_MAX_WAITING = 3  # pieces that are read and not taken
_REPORT_INTERVAL = 1  # seconds between two reports of progress from the thread


class Prefetcher:
    """The pieces of a blob, in order. Created on the event loop."""

    def __init__(self, blobs: BlobReader, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._taken = 0
        self._reported = time.monotonic()
        # None marks the end: either of the blob, or because of `_error`.
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        # Raised by `take` after a cancellation of `run`, which sets no error.
        self._error = Exception("the blob is no longer read")
        self._free = trio.Semaphore(_MAX_WAITING)
        self._token = trio.lowlevel.current_trio_token()

    async def run(self) -> None:
        """Read the blob. An error ends this, and is raised by `take`."""
        try:
            offset = 0
            while offset < self._blob.size:
                # The thread took a piece, so the previous ones were processed.
                await self._free.acquire()
                note_progress()
                piece = await self._read(offset)
                offset += len(piece)
                note_progress()
                self._pieces.put(piece)
        # Any error belongs to the caller that waits for the thread.
        except Exception as error:
            self._error = error
        finally:
            self._pieces.put(None)

    async def _read(self, start: int) -> bytes:
        piece = await self._blobs.read_blob(self._blob, start, _PIECE, self._blob.size)
        if not piece:
            raise IntegrityError(f"{self._blob.digest} ends before the size in its descriptor")
        return piece

    def take(self) -> bytes:
        """Return the next piece, empty at the end. Raises the errors of reading the blob."""
        if self._taken >= self._blob.size:
            return b""
        piece = self._pieces.get()
        if piece is None:
            self._pieces.put(None)  # for further calls
            trio.from_thread.check_cancelled()
            raise self._error
        # Called in the worker thread, and the semaphore belongs to the event loop.
        self._token.run_sync_soon(self._free.release)
        self._taken += len(piece)
        return piece

    def note_work(self) -> None:
        """Report progress: 1 MiB of a blob can contain 40,000 entries, which take seconds."""
        if time.monotonic() - self._reported > _REPORT_INTERVAL:
            self._reported = time.monotonic()
            trio.from_thread.run_sync(note_progress)

    @contextmanager
    def read_to_end_if_malformed(self) -> Iterator[None]:
        """If the content is malformed, take the rest of the blob before raising the error.

        A blob that was damaged in transit then fails its digest instead, and is dropped.
        """
        try:
            yield
        except Malformed:
            while self.take():
                pass
            raise
