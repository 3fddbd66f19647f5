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
from ocifs.store.blockmap import BLOCK
from ocifs.store.disk import Disk, note_use
from ocifs.store.partial import Partial, adopt
from ocifs.store.readahead import ReadAhead


class Fetch:
    """Blocks [start, stop) on their way; `locked` against other processes."""

    __slots__ = ("error", "locked", "start", "stop")

    def __init__(self, start: int, stop: int, *, locked: bool = True) -> None:
        self.start = start
        self.stop = stop
        self.locked = locked
        self.error: OcifsError | None = None


class OpenBlob:
    """A blob that is being read. `whole`: the descriptor of its whole file, where it was that when it was opened; `partial`: its blocks and
    their checksums, which only a whole file may be without.

    `verified`: the whole was found to have its digest. `damaged`: it had once, and blocks of it are being brought again.
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
        self.damaged = False
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
        if held or self.last_used > self._noted:
            self._noted = self.last_used
            note_use(self.descriptor)

    @property
    def descriptor(self) -> int:
        """The file with the content."""
        if self.partial is not None:
            return self.partial.fd
        assert self.whole is not None
        return self.whole

    async def read(self, offset: int, length: int) -> bytes | None:
        """Bytes that are here, each block held against its checksum, where checksums are kept; None where one is damaged."""
        partial = self.partial
        if partial is None:
            return await pread(self.descriptor, offset, length)
        start = offset - offset % BLOCK
        stop = min(self.size, -(-(offset + length) // BLOCK) * BLOCK)
        inside = slice(offset - start, offset - start + length)
        if stop - start <= _BUFFER_BYTES:
            view = memoryview(_read_buffer())[: stop - start]
            with suppress(OSError):
                if os.preadv(partial.fd, [view], start, os.RWF_NOWAIT) == len(view):
                    return bytes(view[inside]) if partial.are_sound(start // BLOCK, view) else None
        content = memoryview(await trio.to_thread.run_sync(os.pread, partial.fd, stop - start, start))
        sound = len(content) == stop - start and await trio.to_thread.run_sync(
            partial.are_sound, start // BLOCK, content
        )
        return bytes(content[inside]) if sound else None

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


def open_files(disk: Disk, blob: Blob, opened: OpenBlob) -> None:
    """Give a blob its files: those of the whole, or what there is of its parts. Blocks. Raises IntegrityError, CacheFull."""
    if _open_whole(disk, blob, opened):
        return
    opened.partial = Partial(disk, blob.digest, blob.size)
    opened.served = not opened.partial.is_empty()  # who left it may have served it
    if not opened.served and disk.whole(blob.digest).exists():  # it was placed between the two looks
        opened.partial.drop()
        opened.partial.close()
        opened.partial = None
        if not _open_whole(disk, blob, opened):
            opened.partial = Partial(disk, blob.digest, blob.size)


def _open_whole(disk: Disk, blob: Blob, opened: OpenBlob) -> bool:
    try:
        descriptor = disk.open_whole(blob.digest)
    except OSError:
        return False
    size = os.fstat(descriptor).st_size
    if size != blob.size:
        os.close(descriptor)
        raise IntegrityError(f"{blob.digest} has {size} bytes, its descriptor says {blob.size}")
    opened.whole = descriptor
    opened.verified = True
    adopt(disk, blob.digest)
    with suppress(OSError):  # of a manifest no checksums are kept, and who may not write need not have them
        opened.partial = Partial(disk, blob.digest, blob.size, whole=True)
        opened.verified = opened.partial.map.verified
    return True


_BUFFER_BYTES = MIB + 2 * BLOCK
# One buffer for each event loop: a fresh one of a mebibyte costs its page faults at every read. Trees
# in other threads have loops of their own, so a buffer of the module would be overwritten under a reader.
_buffer: trio.lowlevel.RunVar[bytearray] = trio.lowlevel.RunVar("ocifs_read_buffer")


def _read_buffer() -> bytearray:
    """The buffer of the current event loop. Copy what was read before the next await."""
    try:
        return _buffer.get()
    except LookupError:
        made = bytearray(_BUFFER_BYTES)
        _buffer.set(made)
        return made


async def pread(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes of a file: at once when they are in the page cache, else by a worker thread."""
    if length <= _BUFFER_BYTES:
        view = memoryview(_read_buffer())[:length]
        with suppress(OSError):
            if os.preadv(descriptor, [view], offset, os.RWF_NOWAIT) == length:
                return bytes(view)
    return await trio.to_thread.run_sync(os.pread, descriptor, length, offset)
