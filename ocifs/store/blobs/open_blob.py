"""A blob that is being read: its files, its readers, and the fetches under way.

Used in the event loop, except `open_files`, which blocks.

Rules that hold here:
- files are closed when their last user has finished, never under a thread that writes or reads;
- a fetch that nobody has waited for or read behind for a while is cancelled, since it may hold one
  of few connections for hours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

import trio

from ocifs.concurrency import in_thread
from ocifs.content import Blob
from ocifs.errors import IntegrityError
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.files import open_parts, open_whole
from ocifs.store.blobs.partial import Partial
from ocifs.store.blobs.readahead import ReadAhead
from ocifs.store.disk import Disk, disk_error, touch

LEFT = 5.0
"""Seconds for which a fetch goes on after its last waiter has left."""

UNREAD = 20.0
"""Seconds for which a fetch goes on while nobody waits for it, since the blob was last read."""


class Fetch:
    """Blocks [start, stop) on their way; `locked` against other processes.

    `scope`: to be entered by the task that fetches.
    """

    __slots__ = ("_waiters", "error", "locked", "scope", "start", "stop")

    def __init__(self, start: int, stop: int, *, locked: bool = True) -> None:
        self.start = start
        self.stop = stop
        self.locked = locked
        self.error: Exception | None = None
        self.scope = trio.CancelScope(deadline=trio.current_time() + UNREAD)
        self._waiters = 0

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Keep the fetch going for the length of the block."""
        self._waiters += 1
        self.scope.deadline = inf
        try:
            yield
        finally:
            self._waiters -= 1
            if not self._waiters:
                self.scope.deadline = trio.current_time() + LEFT

    def read_behind(self) -> None:
        """The blob was read: its reader may soon need what is on its way."""
        if not self._waiters:
            self.scope.deadline = max(self.scope.deadline, trio.current_time() + UNREAD)


class OpenBlob:
    """A blob that is being read. `partial`: its files, once they are open.

    `verified`: the whole was found to match its digest. `damaged`: it had matched, and blocks of it
    are being fetched again. `served`: a reader may have seen bytes of it that nobody had verified.
    `wrong`: why it was dropped. `abandoned`: spans of blocks that other processes hold and do not
    fetch. `uses` counts reads, fetches and other users of the files; the files are closed when the
    last ends after it was retired.
    """

    def __init__(self, blob: Blob) -> None:
        self.size = blob.size
        self.partial: Partial | None = None
        self.fetches: list[Fetch] = []
        self.ahead = ReadAhead()
        self.changed = trio.Event()
        self.verifying = trio.Lock()
        self.verified = False
        self.damaged = False
        self.served = False
        self.wrong: IntegrityError | None = None
        self.hashing = False
        self.abandoned: list[tuple[int, int]] = []
        self.last_used = trio.current_time()
        self._noted = self.last_used
        self.on_close: Callable[[], None] = lambda: None
        self._retired = False
        self._uses = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the files open for the length of the block."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self.last_used = trio.current_time()
            self._close_when_done()

    @property
    def idle(self) -> bool:
        """Whether nobody uses it."""
        return not self._uses

    @property
    def retired(self) -> bool:
        """Whether it is on its way out: nothing more may begin with it."""
        return self._retired

    def touch(self, *, held: bool) -> None:
        """Note on disk that it was used, where it was since the last note, or that somebody has it
        open.
        """
        if held or self.last_used > self._noted:
            self._noted = self.last_used
            if self.partial is not None:
                touch(self.partial.fd)

    @property
    def files(self) -> Partial:
        """The open files. They stay open for as long as it is `used`."""
        assert self.partial is not None
        return self.partial

    async def read(self, offset: int, length: int) -> bytes | None:
        """Cached bytes, each block compared with its checksum; None where one is damaged or cannot
        be read.
        """
        partial = self.files
        start = offset - offset % BLOCK
        stop = min(self.size, -(-(offset + length) // BLOCK) * BLOCK)
        inside = slice(offset - start, offset - start + length)
        if stop - start <= _BUFFER_BYTES:
            view = memoryview(_read_buffer())[: stop - start]
            with suppress(OSError):
                if os.preadv(partial.fd, [view], start, os.RWF_NOWAIT) == len(view):
                    return bytes(view[inside]) if partial.are_sound(start // BLOCK, view) else None
        content = await in_thread(partial.read_sound, start, stop - start)
        return None if content is None else bytes(content[inside])

    def retire(self) -> None:
        """Close the files as soon as nobody uses them."""
        self._retired = True
        self._close_when_done()

    def announce(self) -> None:
        """Wake whoever waits for blocks."""
        self.changed.set()
        self.changed = trio.Event()

    def _close_when_done(self) -> None:
        if not self._retired or self._uses:
            return
        if self.partial is not None:
            self.on_close()
            self.partial.close()
            self.partial = None


def open_files(
    disk: Disk,
    blob: Blob,
    opened: OpenBlob,
    progress: Callable[[], None],
    *,
    regardless: bool = False,
) -> None:
    """Open the files of a whole blob, or of its parts. Blocks. `regardless` as `open_parts` has it.

    Raises BlockingIOError while another process holds the parts, IntegrityError, CacheFailed and
    CacheFull.
    """
    try:
        files = open_whole(disk, blob.digest, blob.size, progress)
        if files is None:
            opened.partial = Partial(
                disk,
                blob.digest,
                blob.size,
                open_parts(disk, blob.digest, blob.size, regardless=regardless),
            )
            opened.served = (
                not opened.partial.is_empty()
            )  # the process that left it may have served it
            if opened.served or not disk.whole(blob.digest).exists():
                return
            files = open_whole(
                disk, blob.digest, blob.size, progress
            )  # it was placed between the two looks
            if files is None:
                return
            opened.partial.drop()
            opened.partial.close()
    except BlockingIOError:
        raise
    except OSError as error:
        raise disk_error(error, disk.partial(blob.digest)) from None
    opened.partial = Partial(disk, blob.digest, blob.size, files)
    opened.verified = files.complete
    opened.damaged = not files.complete


_BUFFER_BYTES = MIB + 2 * BLOCK
# One buffer for each event loop: a fresh one of a mebibyte costs its page faults at every read.
# Trees in other threads have loops of their own, so a buffer of the module would be overwritten
# under a reader.
_buffer: trio.lowlevel.RunVar[bytearray] = trio.lowlevel.RunVar("ocifs_read_buffer")


def _read_buffer() -> bytearray:
    """The buffer of the current event loop. Copy what was read before the next await."""
    try:
        return _buffer.get()
    except LookupError:
        made = bytearray(_BUFFER_BYTES)
        _buffer.set(made)
        return made
