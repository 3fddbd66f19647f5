"""The blobs of one source that are open: one `OpenBlob` for all readers of a digest.

Used in the event loop. Files are opened and hashed in worker threads.

- A blob is opened once, however many readers ask for it at the same time: one without a usable map
  is hashed first.
- Files of idle blobs stay open for the next read. They are closed when there are many of them, when
  they were idle for long, or when a full disk needs the space.
- A blob that a program has open (`acquire`) is not closed, so no process evicts it.
- A blob that the disk does not store or return is read from memory while it is open (overflow.py).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection

import trio

from ocifs.concurrency import SingleFlight, current_waiter, in_thread, note_progress
from ocifs.content import Blob
from ocifs.errors import OcifsError
from ocifs.oci.digest import Digest
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.open_blob import BlobState, Damaged, OpenBlob, Partial, open_files
from ocifs.store.blobs.overflow import Overflow
from ocifs.store.disk import Disk

OPEN_BLOBS = 256  # two or three file descriptors each
_RETRY = 0.05  # seconds between two attempts to open files that another process holds


class OpenBlobs:
    """Opens, finds and closes blobs. `wait`: seconds to wait for another process.

    `overflow`: memory for blobs that the disk does not store.
    """

    def __init__(self, disk: Disk, nursery: trio.Nursery, wait: float, overflow: Overflow) -> None:
        self._disk = disk
        self._wait = wait
        self._blobs: dict[Digest, OpenBlob] = {}  # the one opened last is last
        self._opening: SingleFlight[tuple[Digest, int], OpenBlob] = SingleFlight(nursery)
        self._held: Counter[Digest] = Counter()
        self.overflow = overflow
        # Blobs that memory will take over from the disk with their next read.
        self._replaced: dict[Digest, OpenBlob] = {}

    def find(self, digest: Digest) -> OpenBlob | None:
        """The blob, if it is open."""
        return self._blobs.get(digest)

    def values(self) -> Collection[OpenBlob]:
        """All open blobs."""
        return self._blobs.values()

    async def open(self, blob: Blob) -> OpenBlob:
        """The blob, which is opened if it is not open. Raises as `open_files` does."""
        opened = self._blobs.get(blob.digest)
        # A blob can be retired between its opening and the next step of this task.
        while opened is None or opened.retired:
            opened = await self._opening.run((blob.digest, blob.size), lambda: self._open(blob))
        return opened

    def acquire(self, digest: Digest) -> None:
        """A program opened the blob."""
        self._held[digest] += 1

    def release(self, digest: Digest) -> None:
        """A program closed the blob."""
        self._held[digest] -= 1
        if self._held[digest] <= 0:
            del self._held[digest]

    def close_idle(self, idle: float) -> None:
        """Close the blobs that no program has open and that were not read for `idle` seconds.

        For the others, update the time of use on disk.
        """
        now = trio.current_time()
        for digest, opened in list(self._blobs.items()):
            held = digest in self._held
            if opened.idle and now - opened.last_used >= idle and not held:
                self.retire(opened)
            else:
                opened.touch(held=held)

    def retire(self, opened: OpenBlob) -> None:
        """Close a blob as soon as no task uses it. The next reader opens it again."""
        if self._blobs.get(opened.digest) is opened:
            del self._blobs[opened.digest]
        opened.retire()

    def spill(self, digest: Digest, error: OcifsError) -> None:
        """Hold the blob in memory from now on, since the disk failed with this error."""
        self.overflow.spill(digest, error)
        if opened := self._blobs.get(digest):
            # Its files stay open until memory has taken over their content.
            if digest not in self._replaced:
                opened.acquire()
                self._replaced[digest] = opened
            self.retire(opened)

    async def _open(self, blob: Blob) -> OpenBlob:
        if blob.digest in self.overflow.spilled:
            replaced = self._replaced.pop(blob.digest, None)
            on_disk = replaced.blocks if replaced and replaced.size == blob.size else None
            try:
                blocks = await in_thread(self.overflow.open, blob.digest, blob.size, on_disk)
            finally:
                if replaced is not None:
                    replaced.release()
            closed = functools.partial(self.overflow.closed, blocks)
            # The disk may have served bytes of it before.
            opened = OpenBlob(blob, blocks, Partial(served=True), closed)
        else:
            opened = OpenBlob(blob, *await self._open_on_disk(blob))
        other = self._blobs.pop(blob.digest, None)
        if other is not None and not other.retired:
            # It was opened with another size meanwhile. One of the two is wrong; the first stays.
            opened.retire()
            opened = other
        self._blobs[blob.digest] = opened
        idle = [other for other in self._blobs.values() if other.idle and other is not opened]
        # A dictionary keeps the order of insertion: the blobs opened first are closed first.
        for other in idle[: max(0, len(self._blobs) - OPEN_BLOBS)]:
            self.retire(other)
        return opened

    async def _open_on_disk(self, blob: Blob) -> tuple[BlobBlocks, BlobState]:
        """Open the files, waiting for another process that is opening or evicting them."""
        waiter, token = current_waiter(), trio.lowlevel.current_trio_token()
        end = trio.current_time() + self._wait

        def progress() -> None:
            # Called in the worker thread; the waiter belongs to the event loop.
            if waiter is not None:
                token.run_sync_soon(waiter.progress)

        while True:
            attempt = functools.partial(
                open_files, self._disk, blob, progress, regardless=trio.current_time() >= end
            )
            try:
                blocks, state = await in_thread(attempt)
            except BlockingIOError:
                note_progress()
                await trio.sleep(_RETRY)
            else:
                break
        if isinstance(state, Damaged):
            self._disk.report(
                f"{blob.digest} is damaged on the cache's disk, fetching the damaged blocks again"
            )
        return blocks, state
