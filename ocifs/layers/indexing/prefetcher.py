"""A blob for a worker thread: the event loop reads it ahead of the thread, which so waits for
nobody while it works.

Rules that hold here: few pieces wait; whatever ends the reading is raised where the next piece is
taken, so a thread never waits for one that does not come.
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
_AHEAD = 3  # pieces that are read and not taken


class Prefetcher:
    """The pieces of a blob in order.

    `bring` is to run for as long as a thread takes them; made on the event loop.
    """

    def __init__(self, blobs: BlobReader, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._taken = 0
        self._told = time.monotonic()
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._error = Exception("the blob is no longer read")
        self._room = trio.Semaphore(_AHEAD)
        self._token = trio.lowlevel.current_trio_token()

    async def bring(self) -> None:
        """Read the blob. An error ends that, and is `take`'s to raise."""
        try:
            brought = 0
            while brought < self._blob.size:
                await self._room.acquire()
                note_progress()  # what was read before is worked on
                piece = await self._read(brought)
                brought += len(piece)
                note_progress()
                self._pieces.put(piece)
        except Exception as error:  # whatever it was, it is told to whoever waits for the thread
            self._error = error
        finally:
            self._pieces.put(None)

    async def _read(self, start: int) -> bytes:
        piece = await self._blobs.read_blob(self._blob, start, _PIECE, self._blob.size)
        if not piece:
            raise IntegrityError(
                f"{self._blob.digest} ends before the size that its descriptor says"
            )
        return piece

    def take(self) -> bytes:
        """The next piece, in the thread; none at the end. Raises what reading the blob raises."""
        if self._taken >= self._blob.size:
            return b""
        piece = self._pieces.get()
        if piece is None:
            self._pieces.put(None)  # for who takes again
            trio.from_thread.check_cancelled()
            raise self._error
        self._token.run_sync_soon(self._room.release)
        self._taken += len(piece)
        return piece

    def used(self) -> None:
        """Something of what was taken was worked through: a mebibyte of blob can hold 40,000
        entries, which take seconds.
        """
        if time.monotonic() - self._told > 1:
            self._told = time.monotonic()
            trio.from_thread.run_sync(note_progress)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Take a blob whose content makes no sense to its end: one that came damaged fails by its
        digest then, and is dropped.
        """
        try:
            yield
        except Malformed:
            while self.take():
                pass
            raise
