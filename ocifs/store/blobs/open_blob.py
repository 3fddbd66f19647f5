"""A blob that is being read: its files, its state, and the fetches under way.

Used in the event loop, except `open_files`, which blocks. `OpenBlobs` (opened.py) creates one for
each blob and hands it to all readers of that blob.

The state is one of `Partial`, `Whole`, `Damaged` and `Rejected`:

    opened: some blocks missing ──> Partial ──────────────┐
                                       │                  │ all blocks cached,
                    other content than │                  │ the digest matches
                            the digest │                  ▼
                                       ▼                Whole <── opened: a sound whole blob
                                    Rejected            │   ▲
                                       ▲      a block   │   │ damaged blocks fetched,
                    other content than │     fails its  │   │ the digest matches
                            the digest │      checksum  ▼   │
                                       └────────────── Damaged <── opened: a damaged whole blob

A whole blob always has checksums, and each read is compared with them. One without a map is hashed
once while it is opened, which makes the map.

Apart from its state, a blob is retired when no new reader may begin with it: after it was rejected,
when it was idle for long, or when the disk failed. Its files are closed when the last user ends.

- Files are never closed under a thread that writes or reads: each task that uses them is counted
  from the moment at which it is created.
- A fetch that no task waits for, and behind which no task reads, is cancelled after a while, since
  it may occupy one of few connections for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import trio

from ocifs.content import Blob
from ocifs.errors import IntegrityError
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.files import open_parts, open_whole
from ocifs.store.blobs.readahead import ReadAhead, ReaderState
from ocifs.store.blobs.reads import BlobReads
from ocifs.store.disk import Disk, disk_error, touch

LEFT = 5.0
"""Seconds until a fetch is cancelled after its last waiter has left."""

UNREAD = 20.0
"""Seconds until a fetch without waiters is cancelled after the last read of the blob."""


@dataclass(frozen=True, slots=True)
class Partial:
    """Blocks may be missing. `served`: a reader may have got bytes that were never verified."""

    served: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """Every block is cached, and the whole matched the digest, as this or another process found."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """It was whole, and blocks are fetched again. `served`: as in `Partial`, since the damage."""

    served: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The registry sent other content, which was removed. Readers get this error."""

    error: IntegrityError


BlobState: TypeAlias = Partial | Whole | Damaged | Rejected


class Fetch:
    """Blocks [start, stop) that are being fetched; `locked` against other processes.

    The task that fetches enters `scope`. `reader` is set for a large transfer (bulk.py), and
    `written` is the offset up to which it has written.
    """

    __slots__ = ("_waiters", "error", "locked", "reader", "scope", "start", "stop", "written")

    def __init__(
        self, start: int, stop: int, *, reader: ReaderState | None = None, locked: bool = True
    ) -> None:
        self.start = start
        self.stop = stop
        self.reader = reader
        self.written = start * BLOCK
        self.locked = locked
        self.error: Exception | None = None
        # A fetch ahead of the reader has no waiter, so it begins with a deadline.
        self.scope = trio.CancelScope(deadline=trio.current_time() + UNREAD)
        self._waiters = 0

    @property
    def left(self) -> int:
        """The bytes that are not written."""
        return self.stop * BLOCK - self.written

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Prevent cancellation while the block lasts."""
        self._waiters += 1
        self.scope.deadline = inf
        try:
            yield
        finally:
            self._waiters -= 1
            if not self._waiters:
                self.scope.deadline = trio.current_time() + LEFT

    def read_behind(self) -> None:
        """The blob was read: the reader may soon need these blocks."""
        # With waiters there is no deadline that could be extended.
        if not self._waiters:
            self.scope.deadline = max(self.scope.deadline, trio.current_time() + UNREAD)


class OpenBlob:
    """A blob that is being read. It takes `blocks` over; `on_close` is called when they are closed.

    `changed` is replaced and set when blocks arrive. `verifying` is held by the task that changes
    `state`. `abandoned` are spans of blocks that other processes have locked and do not fetch.
    `whole_stream` is the fetch that receives the whole blob, since the server ignores ranges.
    Nothing is fetched ahead until `ahead_paused_until`. `reports` counts those of corrupt content.
    """

    def __init__(
        self,
        blob: Blob,
        blocks: BlobBlocks,
        state: BlobState,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.digest = blob.digest
        self.size = blob.size
        self.blocks = blocks
        self.state = state
        self._reads = BlobReads(blocks)
        self.fetches: list[Fetch] = []
        self.whole_stream: Fetch | None = None
        self.ahead_paused_until = -inf
        self.reports = 0
        self.ahead = ReadAhead()
        self.changed = trio.Event()
        self.verifying = trio.Lock()
        self.abandoned: list[tuple[int, int]] = []
        self.last_used = trio.current_time()
        self.retired = False
        self._touched = self.last_used
        self._on_close = on_close
        self._uses = 0
        self._closed = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.state, Whole)

    @property
    def is_served(self) -> bool:
        """Whether a reader may have got bytes that were not verified."""
        return isinstance(self.state, Partial | Damaged) and self.state.served

    def fetch_of(self, block: int) -> Fetch | None:
        """The fetch that a block belongs to, if it is being fetched."""
        return next((fetch for fetch in self.fetches if fetch.start <= block < fetch.stop), None)

    def mark_served(self) -> None:
        """Bytes are about to be served; remember it if they are not verified."""
        match self.state:
            case Partial():
                self.state = Partial(served=True)
            case Damaged():
                self.state = Damaged(served=True)

    def acquire(self) -> None:
        """Keep the files open until `release`."""
        self._uses += 1

    def release(self) -> None:
        self._uses -= 1
        self.last_used = trio.current_time()
        self._close_when_unused()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the files open while the block lasts."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    @property
    def idle(self) -> bool:
        """Whether no task uses it."""
        return not self._uses

    def touch(self, *, held: bool) -> None:
        """Update the time of use on disk, if a program has it open or it was used since."""
        if held or self.last_used > self._touched:
            self._touched = self.last_used
            touch(self.blocks.fd)

    async def read(self, offset: int, length: int) -> bytes | None:
        """Cached bytes, compared with their checksums; None if a block is damaged or unreadable."""
        return await self._reads.read(offset, length)

    def retire(self) -> None:
        """Accept no new readers, and close the files when no task uses them."""
        self.retired = True
        self._close_when_unused()

    def announce(self) -> None:
        """Wake the tasks that wait for blocks."""
        # An Event cannot be cleared, so each announcement has its own.
        self.changed.set()
        self.changed = trio.Event()

    def _close_when_unused(self) -> None:
        if self.retired and not self._uses and not self._closed:
            self._closed = True
            self._on_close()
            self.blocks.close()


def open_files(
    disk: Disk, blob: Blob, progress: Callable[[], None], *, regardless: bool = False
) -> tuple[BlobBlocks, BlobState]:
    """Open the files of a whole blob, or of a partial one. Blocks.

    `progress` is called while a blob without a map is hashed. `regardless` as in `open_parts`.
    Raises BlockingIOError while another process holds a partial blob, IntegrityError, CacheFailed
    and CacheFull.
    """
    try:
        files = open_whole(disk, blob.digest, blob.size, progress)
        if files is None:
            parts = open_parts(disk, blob.digest, blob.size, regardless=regardless)
            blocks = BlobBlocks(disk, blob.digest, blob.size, parts)
            if not blocks.is_empty():
                # The process that fetched these blocks may have served them.
                return blocks, Partial(served=True)
            # Another process may have moved the blob to the whole ones between the two attempts.
            if disk.whole(blob.digest).exists():
                files = open_whole(disk, blob.digest, blob.size, progress)
            if files is None:
                return blocks, Partial(served=False)
            blocks.drop()
            blocks.close()
    except BlockingIOError:
        raise
    except OSError as error:
        raise disk_error(error, disk.partial(blob.digest)) from None
    blocks = BlobBlocks(disk, blob.digest, blob.size, files)
    return blocks, Whole() if files.complete else Damaged()
