"""A blob of which some blocks are here: a sparse file, and a map that says which blocks, with a checksum each.

Nothing is synced while blocks come: after a crash or a power cut a block whose content did not reach the disk fails its checksum, and is
fetched again. One process at a time writes a blob, by a lock that ends with it; another one that wants the same blob meanwhile
fetches it into a file of its own.

Rules that hold here: a block counts as here only after its bytes were written; a block that an earlier process left is checked once
before it is believed; the whole is checked against the digest before it gets its place among the whole blobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from isal import isal_zlib

from ocifs.errors import IntegrityError
from ocifs.oci.digest import Digest
from ocifs.settings import KIB, MIB
from ocifs.store.disk import Disk, hold, of_disk

BLOCK = 64 * KIB
_HEADER = struct.Struct("<8sQ")  # magic, size of the blob
_MAGIC = b"ocifsmap"
_CELL = struct.Struct("<Q")  # 1 << 32 | CRC-32 of a block that is here, else 0
_HERE = 1 << 32
_MAX_PIECES = 512  # the kernel takes 1,024 in one call
_HASHED_BLOCKS = 4 * MIB // BLOCK

PRIVATE = ".private"
"""How the file of a process ends that found another one writing the same blob."""


class Partial:
    """The parts of one blob. Methods block, and may be called from several threads at once."""

    def __init__(self, disk: Disk, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self.blocks = -(-size // BLOCK)
        self._disk = disk
        self._path = disk.partial(digest)
        self._private = False
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._hasher = digest.hasher()
        self._hashed = 0
        self._front = 0
        self._checked = bytearray(self.blocks)
        try:
            self._open()
        except OSError as error:
            raise of_disk(error, self._path) from None

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._map_fd = self._open_map()
        except BlockingIOError:
            # Another process writes this blob. What two processes write into one file nobody could vouch for.
            self._private = True
            self._path = self._path.with_name(f"{self._path.name}.{os.getpid()}{PRIVATE}")
            self._map_fd = self._open_map()
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        hold(self.fd)
        length = _HEADER.size + self.blocks * _CELL.size
        header = _HEADER.pack(_MAGIC, self.size)
        if os.pread(self._map_fd, _HEADER.size, 0) != header or os.fstat(self._map_fd).st_size != length:
            os.ftruncate(self._map_fd, 0)
            # All of it now: a hole that could not be filled later, on a full disk, would kill the process with SIGBUS.
            self._disk.with_room(lambda: os.posix_fallocate(self._map_fd, 0, length))
            os.pwrite(self._map_fd, header, 0)
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self._map_fd, length)

    def _open_map(self) -> int:
        """The map, locked for this process alone. Raises BlockingIOError where another one has it."""
        while True:
            descriptor = os.open(self._map_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # it was taken away, by whoever evicted or placed the blob, before it was locked here

    @property
    def _map_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.map")

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)
        os.close(self._map_fd)
        if self._private:
            self.drop()

    def has(self, block: int) -> bool:
        """Whether a block is here. Cheap."""
        return self._cell(block) != 0

    def is_empty(self) -> bool:
        """Whether no block is here."""
        return not any(self._map[_HEADER.size :])

    def first_missing(self, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is not here."""
        start = max(self._front, start)  # every block before it is here
        return next((block for block in range(start, stop) if not self.has(block)), None)

    def is_complete(self) -> bool:
        """Whether every block is here. Each block is looked at once, however often this is asked."""
        while self._front < self.blocks and self.has(self._front):
            self._front += 1
        return self._front == self.blocks

    def is_trusted(self, start: int, stop: int) -> bool:
        """Whether the blocks [start, stop) were all checked, or fetched, by this process."""
        return 0 not in self._checked[start:stop]

    def check(self, start: int, stop: int) -> None:
        """Check what an earlier process left in [start, stop); what fails is missing from now on."""
        for block in range(start, stop):
            cell = self._cell(block)
            if cell and not self._checked[block]:
                if _HERE | isal_zlib.crc32(os.pread(self.fd, BLOCK, block * BLOCK)) == cell:
                    self._checked[block] = 1
                else:
                    self._put(block, 0)
                    self._front = min(self._front, block)

    def write(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Keep bytes, in pieces of any length, that begin at a block's start and end at a block's or the blob's end.

        Blocks that are here already stay as they are, since they may have been hashed or served.
        """
        with self._lock:
            size = sum(map(len, pieces))
            if any(self.has(block) for block in range(offset // BLOCK, -(-(offset + size) // BLOCK))):
                view = memoryview(b"".join(pieces))
                for start in range(0, size, BLOCK):
                    if not self.has((offset + start) // BLOCK):
                        self._write(offset + start, [view[start : start + BLOCK]])
            else:
                self._write(offset, pieces)

    def _write(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        if len(pieces) > _MAX_PIECES:
            pieces = [b"".join(pieces)]
        size = sum(map(len, pieces))
        try:
            done = self._disk.with_room(lambda: os.pwritev(self.fd, pieces, offset))
            if done < size:
                rest = memoryview(b"".join(pieces))[done:]
                while rest:
                    count = self._disk.with_room(partial(os.pwrite, self.fd, rest, offset + size - len(rest)))
                    rest = rest[count:]
        except OSError as error:
            raise of_disk(error, self._path) from None
        for block, checksum in enumerate(_checksums(pieces), offset // BLOCK):
            self._checked[block] = 1
            self._put(block, _HERE | checksum)
        self._disk.on_growth(size)
        self._hash_now(offset, pieces)

    def _hash_now(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Hash what comes in order while it is in memory; what does not is left to `hash_on`."""
        if self._hashing.acquire(blocking=False):
            try:
                if self._hashed == offset:
                    for piece in pieces:
                        self._hasher.update(piece)
                        self._hashed += len(piece)
            finally:
                self._hashing.release()

    def hash_lags(self) -> bool:
        """Whether the next bytes to be hashed are here. Cheap."""
        return self._hashed < self.size and self._checked[self._hashed // BLOCK] == 1

    def hash_on(self) -> bool:
        """Hash the next bytes in order, as far as they are here, a few MiB at a time; whether there were any."""
        with self._hashing:
            first = self._hashed // BLOCK
            stop = self._checked.find(0, first, first + _HASHED_BLOCKS)
            end = min(self.size, (min(self.blocks, first + _HASHED_BLOCKS) if stop < 0 else stop) * BLOCK)
            return self._hash_until(end)

    def _hash_until(self, end: int) -> bool:
        began = self._hashed
        while self._hashed < end:
            piece = os.pread(self.fd, min(MIB, end - self._hashed), self._hashed)
            if not piece:
                break
            self._hasher.update(piece)
            self._hashed += len(piece)
        return self._hashed > began

    def verify(self) -> None:
        """Check the whole. Raises IntegrityError, after which nothing of it is left."""
        with self._hashing:
            self._hash_until(self.size)
            good = self._hashed == self.size and self._hasher.hexdigest() == self.digest.encoded
        if not good:
            self.drop()
            raise IntegrityError(f"what was served for {self.digest} has other content; it was dropped")

    def place(self) -> Path:
        """Give what was verified its place among the whole blobs, and where that is."""
        target = self._disk.whole(self.digest)
        try:
            if not os.fstat(
                self.fd
            ).st_nlink:  # in memory, or cleared by force: what has the name now is somebody else's
                return target
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.fdatasync(self.fd)
            os.rename(self._path, target)
            os.unlink(self._map_path)
        except OSError as error:
            raise of_disk(error, target) from None
        return target

    def drop(self) -> None:
        """Take everything away."""
        for path in (self._map_path, self._path):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _cell(self, block: int) -> int:
        value: int = _CELL.unpack_from(self._map, _HEADER.size + block * _CELL.size)[0]
        return value

    def _put(self, block: int, value: int) -> None:
        _CELL.pack_into(self._map, _HEADER.size + block * _CELL.size, value)


def _checksums(pieces: Sequence[bytes | memoryview]) -> Iterator[int]:
    """The checksum of each block of what the pieces are together."""
    checksum, room = 0, BLOCK
    for piece in pieces:
        view = memoryview(piece)
        while view:
            part = view[:room]
            checksum = isal_zlib.crc32(part, checksum)
            room -= len(part)
            view = view[len(part) :]
            if not room:
                yield checksum
                checksum, room = 0, BLOCK
    if room < BLOCK:
        yield checksum
