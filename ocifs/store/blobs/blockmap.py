"""Which blocks of a blob are cached, with a checksum each: a small file beside the blob.

    bytes 0 to 23        magic, size of the blob, 1 if the whole matched its digest
    then 8 for a block   1 << 32 | CRC-32 of a cached block, else 0

All numbers are in the byte order of the machine.

Every process that has the blob open reads and writes the same file, so each sees at once which
blocks another one has fetched. The file is not mapped into memory: one that is truncated, or whose
disk fails, must never end the process with SIGBUS.

Spans of blocks are locked by `fcntl` locks on their entries (open file description locks), which
end with the process that holds them. So one process at a time fetches a block. The lock of the
header is for the process that creates, verifies or moves the whole blob.

Methods may be called from several threads at once. Methods that only read the map are also called
in the event loop.

- An entry is set after its bytes were written, with one write of a machine word.
- An entry that is truncated, unreadable or not exactly of this form is a missing block, never an
  error of a reader.
- Nothing here waits.
- An open map has a shared flock, so that it is not evicted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

from ocifs.settings import KIB
from ocifs.store.disk import open_regular

BLOCK = 64 * KIB
_MAGIC = int.from_bytes(b"ocifsmp2", "little")
_WORD = 8
_HEADER = 3  # words
_VERIFIED = 2
# A CRC-32 may be 0, so an entry needs a mark besides its checksum.
_CACHED = 1  # the upper half of the word of a cached block
_AT_ONCE = 4096  # words read at a time
_UPPER = 1 if sys.byteorder == "little" else 0
# Spans of other processes, one in front of another. With more, the locks of the file system make no
# sense, and are ignored.
_LOCK_TRIES = 1000
_LOCK = struct.Struct("@hhqqi0q")  # struct flock of fcntl(2): type, whence, start, length, process


class BlockMap:
    """An open map of a blob of `size` bytes. It takes the descriptor over."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.blocks = -(-size // BLOCK)
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)

    def _halves(self, block: int, count: int) -> array[int]:
        """The words of some blocks as pairs of 32 bits. A word that cannot be read is zero."""
        length = count * _WORD
        try:
            words = os.pread(self.descriptor, length, (_HEADER + block) * _WORD)
        except OSError:
            words = b""
        return array("I", words[: len(words) // _WORD * _WORD].ljust(length, b"\0"))

    def checksums(self, start: int, stop: int) -> list[int | None]:
        """The CRC-32 of each block in [start, stop), or None if it is not cached."""
        halves = self._halves(start, stop - start)
        pairs = zip(halves[_UPPER::2], halves[1 - _UPPER :: 2], strict=True)
        return [lower if upper == _CACHED else None for upper, lower in pairs]

    def checksum(self, block: int) -> int | None:
        """The CRC-32 of a block, or None if it is not cached."""
        return self.checksums(block, block + 1)[0]

    def has(self, block: int) -> bool:
        """Whether a block is cached."""
        return self.checksum(block) is not None

    def is_empty(self) -> bool:
        """Whether no block is cached."""
        return self.first_cached(0, self.blocks) is None

    def first_missing(self, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is not cached."""
        return self._first(start, stop, cached=False)

    def first_cached(self, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is cached."""
        return self._first(start, stop, cached=True)

    def _first(self, start: int, stop: int, *, cached: bool) -> int | None:
        stop = min(stop, self.blocks)
        for first in range(start, stop, _AT_ONCE):
            uppers = self._halves(first, min(_AT_ONCE, stop - first))[_UPPER::2]
            # A count is one call into C. Only the batch with the answer is searched entry by entry.
            if uppers.count(_CACHED) == (0 if cached else len(uppers)):
                continue
            return first + next(
                index for index, upper in enumerate(uppers) if (upper == _CACHED) is cached
            )
        return None

    def put(self, block: int, checksums: Sequence[int]) -> None:
        """Record that the blocks from this one on are cached. Raises OSError."""
        words = array("Q", [_CACHED << 32 | checksum for checksum in checksums])
        os.pwrite(self.descriptor, words.tobytes(), (_HEADER + block) * _WORD)

    def clear(self, block: int) -> None:
        """Record that a block is damaged, so it counts as missing. Raises OSError."""
        # The header first: a crash between the two writes must not leave a verified map with a
        # missing block.
        self.set_unverified()
        os.pwrite(self.descriptor, bytes(_WORD), (_HEADER + block) * _WORD)

    @property
    def verified(self) -> bool:
        """Whether any process has found that the blob with these checksums matches its digest."""
        try:
            return os.pread(self.descriptor, _WORD, _VERIFIED * _WORD) == struct.pack("@Q", 1)
        except OSError:
            return False

    def set_verified(self) -> None:
        """Record that the whole matches its digest. Raises OSError."""
        self._put_verified(1)

    def set_unverified(self) -> None:
        """Record that a block is damaged, so that each one is checked. Raises OSError."""
        self._put_verified(0)

    def _put_verified(self, value: int) -> None:
        os.pwrite(self.descriptor, struct.pack("@Q", value), _VERIFIED * _WORD)

    def sync(self) -> None:
        """Write the map through to the disk. Raises OSError."""
        os.fsync(self.descriptor)

    def lock(self, start: int, stop: int) -> int:
        """Lock the blocks [start, stop) against other processes, or the first ones that are free.

        Returns the end of the locked span (`start`: none is locked).
        """
        for _ in range(_LOCK_TRIES):
            if start >= stop or self._set(fcntl.F_WRLCK, _HEADER + start, _HEADER + stop):
                break
            held = self.held(start, stop)
            if held is not None:  # otherwise it was released meanwhile
                stop = max(start, held[0])
        return stop

    def held(self, start: int, stop: int) -> tuple[int, int] | None:
        """The first span in [start, stop) that another process has locked. It may reach beyond."""
        request = _pack(fcntl.F_WRLCK, _HEADER + start, _HEADER + stop)
        try:
            kind, _, begin, length, _ = _LOCK.unpack(
                fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, request)
            )
        except OSError:
            return None
        if kind == fcntl.F_UNLCK:
            return None
        # A length of zero reaches to the end of the file (fcntl(2)).
        end = begin // _WORD + length // _WORD if length else stop + _HEADER
        return max(0, begin // _WORD - _HEADER), end - _HEADER

    def unlock(self, start: int, stop: int) -> None:
        if start >= stop:
            return  # the kernel takes an empty span for one without an end
        self._set(fcntl.F_UNLCK, _HEADER + start, _HEADER + stop)

    def try_lock_header(self) -> bool:
        """Lock the header, if no other process has locked it."""
        return self._set(fcntl.F_WRLCK, 0, _HEADER)

    def unlock_header(self) -> None:
        self._set(fcntl.F_UNLCK, 0, _HEADER)

    def _set(self, kind: int, first: int, last: int) -> bool:
        """Set a lock. False: another process holds it.

        On a file system without locks, each process fetches for itself.
        """
        try:
            # Not F_SETLK: its locks end when the process closes any descriptor of the file.
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _pack(kind, first, last))
        except OSError as error:
            # Either error means that the lock is held (fcntl(2)).
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True


def map_length(size: int) -> int:
    """The size of the map of a blob."""
    return (_HEADER + -(-size // BLOCK)) * _WORD


def header_of(size: int, *, verified: bool = False) -> bytes:
    """The first bytes of the map of a blob."""
    return struct.pack("@QQQ", _MAGIC, size, verified)


def is_map(descriptor: int, size: int) -> bool:
    """Whether a file is the map of a blob of that size."""
    header = os.pread(descriptor, _HEADER * _WORD, 0)
    # The third word differs between valid maps: it is 1 if the whole was verified.
    return header[: 2 * _WORD] == header_of(size)[: 2 * _WORD] and os.fstat(
        descriptor
    ).st_size == map_length(size)


def find_map(path: Path, size: int, flags: int = os.O_RDWR) -> BlockMap | None:
    """An existing map with a shared lock, or None if there is none that can be used.

    Raises BlockingIOError while another process is evicting it.
    """
    try:
        descriptor = open_regular(path, flags)
    except OSError:
        return None
    try:
        _share(descriptor)
        if is_map(descriptor, size):
            return BlockMap(descriptor, size)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass
    os.close(descriptor)
    return None


def _share(descriptor: int) -> None:
    """Protect a file from eviction. Raises BlockingIOError.

    On a file system without locks, an evicted file remains readable.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass


def is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to this very file."""
    try:
        current = path.stat(follow_symlinks=False)
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (current.st_dev, current.st_ino) == (opened.st_dev, opened.st_ino)


def _pack(kind: int, first: int, last: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, first * _WORD, (last - first) * _WORD, 0)
