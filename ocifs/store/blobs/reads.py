"""Reads the cached bytes of a blob, and compares them with their checksums.

Called in the event loop by `OpenBlob`. Bytes that are in the page cache are read in the event loop,
all others in a worker thread. Several threads read and check side by side.

A read takes the first of these ways that succeeds:

    a few bytes of blocks that were checked    only these bytes are read (`checked.py`)
    the page cache has the blocks              they are read and checked in the event loop
    otherwise                                  they are read and checked in a thread

An attempt to read from the page cache (RWF_NOWAIT) fails at once if bytes are missing, and makes
the kernel begin to read them. A fast disk delivers a few pages within 0.1 ms, and a thread takes
about as long to start. So a small read is attempted again for a moment (`_PageCache`).

Rules that hold here:

- Bytes that do not match their checksums are never returned.
- A read of a block or more is always checked: it reads whole blocks anyway.
- The event loop never waits for the disk. It attempts again for half a millisecond at most.
"""

from __future__ import annotations

import os
import time

import trio

from ocifs.concurrency import in_thread
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.checked import CheckedBlocks

_BUFFER_BYTES = MIB + 2 * BLOCK
_SMALL = 2 * BLOCK
_AGAIN = 0.0005  # seconds in which a small read is attempted
_FIRST_PAUSE, _LAST_PAUSE = 0.005, 0.64


class _PageCache:
    """Reads from the page cache. One object belongs to one event loop.

    After attempts in vain there are none for a pause, which doubles each time. So a slow disk costs
    less than a thousandth of the loop's time.
    """

    def __init__(self) -> None:
        # A fresh buffer of a mebibyte costs its page faults at every read. Copy the bytes before
        # the next await.
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._pause = _FIRST_PAUSE
        self._pause_end = 0.0

    def read(self, descriptor: int, offset: int, size: int) -> memoryview | None:
        """Bytes of a file, which are valid until the next await. None: they are not in memory."""
        if size > _BUFFER_BYTES:
            return None
        view = self.buffer[:size]
        count = _read_nowait(descriptor, view, offset)
        if count == size:
            return view
        if size > _SMALL or time.monotonic() < self._pause_end:
            return None
        end = time.monotonic() + _AGAIN
        while time.monotonic() < end:
            count += _read_nowait(descriptor, view[count:], offset + count)
            if count == size:
                self._pause = _FIRST_PAUSE
                return view
        self._pause_end = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LAST_PAUSE)
        return None


def _read_nowait(descriptor: int, view: memoryview, offset: int) -> int:
    """Read from memory, and return the number of bytes."""
    try:
        return os.preadv(descriptor, [view], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or a disk or file system that cannot; a thread meets its errors
        return 0


# Trees in other threads have loops of their own, so a buffer of the module would be overwritten
# under a reader.
_page_cache: trio.lowlevel.RunVar[_PageCache] = trio.lowlevel.RunVar("ocifs_page_cache")


def _loop_page_cache() -> _PageCache:
    """The page cache's reader of the current event loop."""
    try:
        return _page_cache.get()
    except LookupError:
        made = _PageCache()
        _page_cache.set(made)
        return made


class BlobReads:
    """Reads of one open blob."""

    def __init__(self, blocks: BlobBlocks) -> None:
        self._blocks = blocks
        self._checked = CheckedBlocks(blocks.fd, blocks.count)

    async def read(self, offset: int, length: int) -> bytes | None:
        """Cached bytes. None: a block is damaged or unreadable."""
        first, stop = offset // BLOCK, -(-(offset + length) // BLOCK)
        is_stable = not self._blocks.forgets
        if length < BLOCK and is_stable and self._checked.includes(first, stop):
            content = await self._read_part(offset, length)
            # After the read: the file has not changed before it.
            if content is not None and self._checked.are_valid(first, stop):
                return content
        start, end = first * BLOCK, min(self._blocks.size, stop * BLOCK)
        inside = slice(offset - start, offset - start + length)
        stamp = self._checked.stamp()
        content = await self._read_blocks(start, end - start, inside)
        if content is not None:
            self._checked.add(first, stop, stamp)
        return content

    async def _read_part(self, offset: int, length: int) -> bytes | None:
        """Bytes that are not checked, or None if they cannot be read."""
        descriptor = self._blocks.fd
        view = _loop_page_cache().read(descriptor, offset, length)
        if view is not None:
            return bytes(view)
        try:
            content = await in_thread(os.pread, descriptor, length, offset)
        except OSError:
            return None
        return content if len(content) == length else None

    async def _read_blocks(self, start: int, size: int, inside: slice) -> bytes | None:
        """The part `inside` of whole blocks, which are checked."""
        blocks = self._blocks
        view = _loop_page_cache().read(blocks.fd, start, size)
        if view is not None:
            return bytes(view[inside]) if blocks.are_sound(start // BLOCK, view) else None
        content = await in_thread(blocks.read_sound, start, size)
        return None if content is None else bytes(content[inside])
