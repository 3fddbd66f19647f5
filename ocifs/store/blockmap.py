"""Which blocks of a blob are here, with a checksum each: a small file that every process with the blob open has in its memory.

    bytes 0 to 23    magic, size of the blob, 1 when the whole was found to have its digest
    then 8 a block   1 << 32 | CRC-32 of a block that is here, else 0; all in the machine's byte order

Spans of blocks are locked by `fcntl` locks on their entries, which end with the process that has them (open file description locks), so
that of all processes one at a time fetches a block. A lock of the header is for whoever makes, verifies or moves the whole.

Rules that hold here: an entry is set after its bytes were written, by one store of a machine word; a map is never made shorter, since
others have it mapped; who has one open holds a shared flock on it, so that it is not evicted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ocifs.settings import KIB

BLOCK = 64 * KIB
_MAGIC = int.from_bytes(b"ocifsmp2", "little")
_WORD = 8
_HEADER = 3  # words
_SIZE, _VERIFIED = 1, 2
_HERE = 1 << 32
_LOCK = struct.Struct("@hhqqi0q")  # struct flock of fcntl(2): type, whence, start, length, process
_WAIT = 5.0  # seconds for which a lock is waited for that others hold for moments only


class BlockMap:
    """An open map. Nothing here waits but `header`."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Takes the descriptor over. Raises OSError or ValueError where it cannot be mapped."""
        self.blocks = -(-size // BLOCK)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, map_length(size))
        self._words = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        self._words.release()
        self._memory.close()
        os.close(self.descriptor)

    def checksum(self, block: int) -> int | None:
        """The CRC-32 of a block, None when it is not here. Cheap."""
        word = self._words[_HEADER + block]
        return word & 0xFFFFFFFF if word else None

    def has(self, block: int) -> bool:
        """Whether a block is here. Cheap."""
        return self._words[_HEADER + block] != 0

    def is_empty(self) -> bool:
        """Whether no block is here."""
        return not any(self._words[_HEADER:])

    def first_missing(self, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is not here."""
        return next((block for block in range(start, stop) if not self.has(block)), None)

    def put(self, block: int, checksum: int) -> None:
        """A block is here now."""
        self._words[_HEADER + block] = _HERE | checksum

    def clear(self, block: int) -> None:
        """A block was found damaged."""
        self._words[_VERIFIED] = 0
        self._words[_HEADER + block] = 0

    @property
    def verified(self) -> bool:
        """Whether the whole, whose blocks have these checksums, was found to have its digest, by whichever process."""
        return self._words[_VERIFIED] == 1

    def set_verified(self) -> None:
        self._words[_VERIFIED] = 1

    def sync(self) -> None:
        """Bring it to the disk."""
        self._memory.flush()
        os.fsync(self.descriptor)

    def lock(self, start: int, stop: int) -> int:
        """Lock the blocks [start, stop) against other processes, or as many as are free; where that ends (`start`: none)."""
        while start < stop:
            if self._set(fcntl.F_WRLCK, _HEADER + start, _HEADER + stop):
                return stop
            held = self.held(start, stop)
            if held is not None:
                stop = max(start, held[0])
        return start

    def held(self, start: int, stop: int) -> tuple[int, int] | None:
        """The span that another process has locked and that reaches into [start, stop), the first of several."""
        asked = _pack(fcntl.F_WRLCK, _HEADER + start, _HEADER + stop)
        kind, _, begin, length, _ = _LOCK.unpack(fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return None
        end = begin // _WORD + length // _WORD if length else stop + _HEADER
        return max(0, begin // _WORD - _HEADER), end - _HEADER

    def unlock(self, start: int, stop: int) -> None:
        if start >= stop:
            return  # to the kernel an empty span is one without end
        with contextlib.suppress(OSError):
            self._set(fcntl.F_UNLCK, _HEADER + start, _HEADER + stop)

    def try_header(self) -> bool:
        """Lock the header, where nobody else has."""
        return self._set(fcntl.F_WRLCK, 0, _HEADER)

    def leave_header(self) -> None:
        self._set(fcntl.F_UNLCK, 0, _HEADER)

    @contextmanager
    def header(self) -> Iterator[None]:
        """The header, locked. Waits, in a worker thread. Raises TimeoutError, which is an OSError."""
        within(self.try_header)
        try:
            yield
        finally:
            self.leave_header()

    def _set(self, kind: int, first: int, last: int) -> bool:
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _pack(kind, first, last))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def map_length(size: int) -> int:
    """Bytes of the map of a blob."""
    return (_HEADER + -(-size // BLOCK)) * _WORD


def header_of(size: int) -> bytes:
    """How the map of a blob begins of which nothing is here."""
    return struct.pack("@QQQ", _MAGIC, size, 0)


def is_map(descriptor: int, size: int) -> bool:
    """Whether a file is the map of a blob of that size."""
    found = os.pread(descriptor, _HEADER * _WORD, 0)
    return found[: 2 * _WORD] == header_of(size)[: 2 * _WORD] and os.fstat(descriptor).st_size == map_length(size)


def find_map(path: Path, size: int) -> BlockMap | None:
    """A map that is there already, None where there is none that could be one. A shared lock keeps it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if is_map(descriptor, size):
            return BlockMap(descriptor, size)
    except (OSError, ValueError):
        pass
    os.close(descriptor)
    return None


def within(attempt: Callable[[], bool]) -> None:
    """Try until it works, for a worker thread. Raises TimeoutError."""
    end = time.monotonic() + _WAIT
    while not attempt():
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds it for too long")
        time.sleep(0.002)  # such locks have no time limit of their own


def is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to this very file."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _pack(kind: int, first: int, last: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, first * _WORD, (last - first) * _WORD, 0)
