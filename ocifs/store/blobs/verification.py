"""Compares complete blobs with their digests, and reacts to damage that readers find.

Called in the event loop by `CachedBlobs`; hashing and moving files happen in worker threads.

- A blob is verified once in all processes that have it open.
- Corrupt content is fetched once more from another mirror, if there is one and none of its bytes
  have been served. The readers that wait get `RetryElsewhere`.
- No reader waits for a verified blob to move to its final path. If the move fails, the next mount
  tries again.
"""

from __future__ import annotations

import trio

from ocifs.concurrency import guarded, in_thread, note_progress
from ocifs.content import Blob, BlobSource
from ocifs.errors import IntegrityError
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.open_blob import Damaged, OpenBlob, Rejected, Whole
from ocifs.store.blobs.opened import OpenBlobs
from ocifs.store.disk import Disk

_MOMENT = 0.005  # seconds between two looks at another process


class RetryElsewhere(IntegrityError):
    """The content was corrupt, none of it was served, and another mirror may have it."""


class Verifier:
    """Verifies the blobs of one source. `wait`: seconds to wait for another process."""

    def __init__(
        self, source: BlobSource, opened: OpenBlobs, disk: Disk, nursery: trio.Nursery, wait: float
    ) -> None:
        self._source = source
        self._opened = opened
        self._disk = disk
        self._nursery = nursery
        self._wait = wait

    async def verify(self, blob: Blob, opened: OpenBlob) -> bool:
        """Verify a blob with all blocks cached. False: damaged blocks were found, and are missing
        now.

        Raises IntegrityError, CacheFailed.
        """
        async with opened.verifying:
            # Another reader may have verified the blob while this one waited for the lock.
            match opened.state:
                case Rejected(error):
                    raise error
                case Whole():
                    return True
            blocks = opened.blocks
            if not blocks.forgets and not await _may_verify(blocks, self._wait):
                # Another process has verified it. It may have been killed before it moved the
                # files.
                self._finish(opened)
                return True
            try:
                if not await in_thread(_check_and_verify, blocks):
                    return False
            except IntegrityError as error:
                raise self._reject(blob, opened, error) from None
            finally:
                blocks.map.unlock_header()
            if blocks.forgets:
                # It is never whole: forgotten content is fetched again when it is read.
                return True
            if isinstance(opened.state, Damaged):
                self._disk.report(
                    f"{blob.digest} is whole again: its damaged blocks were fetched again"
                )
            self._finish(opened)
            return True

    async def refetch_damaged(self, blob: Blob, opened: OpenBlob) -> None:
        """A block failed its checksum: fetch such blocks again, and verify the whole again."""
        async with opened.verifying:
            # Another reader may have found the damage first: its `served` must not be reset.
            if opened.is_whole:
                opened.state = Damaged()
            self._disk.report(
                f"{blob.digest} is damaged on the cache's disk, fetching the damaged blocks again"
            )
            await in_thread(opened.blocks.recheck)

    def _reject(self, blob: Blob, opened: OpenBlob, error: IntegrityError) -> IntegrityError:
        """The error for the readers of corrupt content."""
        if self._source.report_corrupt(blob.digest) and not opened.is_served:
            error = RetryElsewhere(str(error))
        opened.state = Rejected(error)
        self._opened.retire(opened)
        return error

    def _finish(self, opened: OpenBlob) -> None:
        opened.state = Whole()
        # The files are held from here on: the reader may leave before the task begins.
        opened.acquire()
        self._nursery.start_soon(guarded, "caching a blob", self._place, opened)

    async def _place(self, opened: OpenBlob) -> None:
        try:
            # Shielded, since a command that has read everything ends at once.
            with trio.CancelScope(shield=True):
                await in_thread(opened.blocks.place)
        finally:
            opened.release()


def _check_and_verify(blocks: BlobBlocks) -> bool:
    """Clear damaged blocks of earlier processes, which never reached the disk, then verify.

    Otherwise they would be taken for corrupt content of the registry.
    """
    if not blocks.is_trusted(0, blocks.count):
        blocks.check(0, blocks.count)
        if not blocks.is_complete():
            return False
    return blocks.verify()


async def _may_verify(blocks: BlobBlocks, wait: float) -> bool:
    """Wait until this process has locked the map's header, or another process has verified the
    whole (False).
    """
    end = trio.current_time() + wait
    while not blocks.map.verified:
        # After the wait it continues without the lock: two processes then do the same work.
        if blocks.map.try_lock_header() or trio.current_time() > end:
            return True
        await trio.sleep(_MOMENT)
        note_progress()
    return False
