"""A blob that is being read: its files, who uses them, what is on its way.

Rules that hold here: files are closed when the last one who uses them has done with them, never under a thread that writes or reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trio

from ocifs.content import Blob
from ocifs.errors import IntegrityError, OcifsError
from ocifs.settings import MIB
from ocifs.store.disk import note_use
from ocifs.store.partial import Partial
from ocifs.store.readahead import ReadAhead


class Fetch:
    """Blocks [start, stop) on their way."""

    __slots__ = ("error", "start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.error: OcifsError | None = None


class OpenBlob:
    """A blob that is being read. `whole`: the descriptor of its verified file; else `partial` has what is here.

    `served`: somebody may have seen bytes of it that nobody had verified. `wrong`: why it was dropped.
    `uses` counts reads, fetches and whatever else needs the files; they are closed at the last one's end once it was retired.
    """

    def __init__(self, blob: Blob) -> None:
        self.size = blob.size
        self.whole: int | None = None
        self.partial: Partial | None = None
        self.fetches: list[Fetch] = []
        self.ahead = ReadAhead()
        self.changed = trio.Event()
        self.verifying = trio.Lock()
        self.verified = False
        self.served = False
        self.wrong: IntegrityError | None = None
        self.hashing = False
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

    def note_use(self, *, held: bool) -> None:
        """Note on disk that it was used, where it was since the last note, or that somebody has it open."""
        descriptor = self.partial.fd if self.partial is not None else self.whole
        if descriptor is not None and (held or self.last_used > self._noted):
            self._noted = self.last_used
            note_use(descriptor)

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
        if self.whole is not None:
            os.close(self.whole)
            self.whole = None
        if self.partial is not None:
            self.on_close()
            self.partial.close()
            self.partial = None


# One buffer for all reads from the page cache: a fresh one of a mebibyte costs its page faults each time.
_buffer = bytearray(MIB)


async def pread(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes of a file: at once when they are in the page cache, else by a worker thread."""
    if length <= len(_buffer):
        view = memoryview(_buffer)[:length]
        with suppress(OSError):
            if os.preadv(descriptor, [view], offset, os.RWF_NOWAIT) == length:
                return bytes(view)
    return await trio.to_thread.run_sync(os.pread, descriptor, length, offset)
