"""The blocks of one blob: a sparse file, and a map that records which blocks are cached, with a
checksum each.

Methods block and run in worker threads, several at once. Methods that read only the map are also
called in the event loop. Any number of processes have both files open (`files.py`), and each sees
the blocks of another one at once. The process that fetches a span of blocks has it locked
(`blockmap.py`).

A block is in one of these states, as this process sees it:

    missing     not in the map
    cached      in the map, written by another process or an earlier one
    trusted     cached, and written or checked by this process

- A block is cached only after its bytes were written.
- A block that this process did not write is compared with its checksum once before it is trusted.
- A block that cannot be read counts as damaged, and becomes missing. An error of the disk is
  CacheFailed or CacheFull, never an OSError.
- The whole is compared with the digest before it moves to the whole blobs (`placement.py`).

Nothing is synced while blocks arrive: after a crash or a power cut, a block that did not reach the
disk fails its checksum and is fetched again. The checksums stay with the whole blob, and
detect decay of the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from isal import isal_zlib

from ocifs.errors import CacheFailed, IntegrityError
from ocifs.oci.digest import Digest
from ocifs.store.blobs import placement
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.files import BlobFiles, open_parts
from ocifs.store.blobs.hashing import RunningHash
from ocifs.store.disk import Disk

_MAX_PIECES = 512  # the kernel accepts 1,024 in one call


class BlobBlocks:
    """The blocks of one blob, whole or partial.

    `files` are its open files, which are taken over. Without them those of a partial blob are
    opened, which raises CacheFailed and CacheFull.
    """

    def __init__(
        self, disk: Disk, digest: Digest, size: int, files: BlobFiles | None = None
    ) -> None:
        files = files or _open(disk, digest, size)
        self.digest = digest
        self.size = size
        self.count = -(-size // BLOCK)
        self.fd, self.map = files.descriptor, files.map
        self._disk = disk
        self._writing = threading.Lock()
        self._hash = RunningHash(digest, size, self.fd)
        # Every block before this one is cached. Too small a value only costs another look.
        self._front = 0
        # One byte for each block. Bytes are set by single operations, so no lock is needed.
        self._trusted = bytearray(self.count)
        self.position = 0  # of the last read

    forgets = False  # cached blocks may become missing while the blob is open (window.py)
    most_ahead = sys.maxsize  # bytes that may be fetched ahead of a reader

    def recheck(self) -> None:
        """Trust no block any longer, and hash from the start."""
        # The hash comes last: after its restart, a thread that hashes sees the new trusted blocks.
        self._front = 0
        self._trusted = bytearray(self.count)
        self._hash.restart()

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)

    def has(self, block: int) -> bool:
        """Whether a block is cached. Cheap."""
        return self.map.has(block)

    def is_empty(self) -> bool:
        """Whether no block is cached."""
        return self.map.is_empty()

    def first_missing(self, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is not cached."""
        return self.map.first_missing(max(self._front, start), stop)

    def is_complete(self) -> bool:
        """Whether every block is cached. Repeated calls look at each block once."""
        missing = self.map.first_missing(self._front, self.count)
        self._front = self.count if missing is None else missing
        return missing is None

    def is_trusted(self, start: int, stop: int) -> bool:
        """Whether this process has written or checked every block in [start, stop)."""
        return 0 not in self._trusted[start:stop]

    def check(self, start: int, stop: int) -> None:
        """Check the blocks in [start, stop) that are not trusted. A damaged one becomes missing.

        A block that another process has locked is left as it is. Raises CacheFailed if the map
        cannot be written.
        """
        for block in range(start, stop):
            if self._trusted[block]:
                continue
            # The first comparison needs no lock. Only a block that fails it is locked and compared
            # again, since another process may have been writing it.
            checksum = self.map.checksum(block)
            if checksum is not None and self._is_sound(block, checksum):
                continue
            self._front = min(self._front, block)
            # A missing block is not locked: this process may be fetching it, and unlocking it here
            # would end the lock of that fetch.
            if checksum is not None and self.map.lock(block, block + 1) > block:
                try:
                    self._clear_damaged(block)
                finally:
                    self.map.unlock(block, block + 1)

    def disown(self, start: int, stop: int) -> None:
        """Make damaged blocks in [start, stop) missing, even if another process has them locked.

        Raises CacheFailed.
        """
        for block in range(start, stop):
            if not self._trusted[block]:
                self._clear_damaged(block)

    def _clear_damaged(self, block: int) -> None:
        checksum = self.map.checksum(block)
        if checksum is not None and not self._is_sound(block, checksum):
            try:
                self.map.clear(block)
            except OSError as error:
                raise self._disk.explain(error, self._disk.partial_map(self.digest)) from None

    def _is_sound(self, block: int, checksum: int) -> bool:
        try:
            content = os.pread(self.fd, BLOCK, block * BLOCK)
        except OSError:
            return False
        if isal_zlib.crc32(content) != checksum:
            return False
        self._trusted[block] = 1
        return True

    def read_sound(self, start: int, size: int) -> memoryview | None:
        """Bytes from the start of a block, or None if a block fails its checksum."""
        try:
            content = memoryview(os.pread(self.fd, size, start))
        except OSError:
            return None
        return content if len(content) == size and self.are_sound(start // BLOCK, content) else None

    def are_sound(self, first: int, content: memoryview) -> bool:
        """Whether bytes that were read from the start of block `first` match their checksums."""
        expected = self.map.checksums(first, first + -(-len(content) // BLOCK))
        starts = range(0, len(content), BLOCK)
        return expected == [isal_zlib.crc32(content[start : start + BLOCK]) for start in starts]

    def write(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Cache bytes that begin at the start of a block and end at the end of a block or the blob.

        Blocks that are cached already are not written again: they may have been hashed or served.
        Raises CacheFailed, CacheFull.
        """
        with self._writing:
            size = sum(map(len, pieces))
            if self.map.first_cached(offset // BLOCK, -(-(offset + size) // BLOCK)) is not None:
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
            _write_all(self._disk, self.fd, pieces, offset, size)
            # In this order: bytes, trust, map. Other threads and processes look at the map first,
            # so a block in the map has its bytes, and this process trusts it.
            first, checksums = offset // BLOCK, list(_checksums(pieces))
            self._trusted[first : first + len(checksums)] = b"\1" * len(checksums)
            self._disk.with_room(lambda: self.map.put(first, checksums))
            # Read back, since a failing disk may accept a write and lose it.
            if self.map.first_missing(first, first + len(checksums)) is not None:
                raise OSError(errno.EIO, "the map of a blob lost an entry")  # noqa: TRY301
        except OSError as error:
            raise self._disk.explain(error, self._disk.partial(self.digest)) from None
        self._disk.grew(size)
        self._hash.update(offset, pieces)

    def hash_lags(self) -> bool:
        """Whether the next bytes to hash are cached and trusted. Cheap."""
        return self._hash.can_advance(self._trusted)

    def hash_on(self) -> bool:
        """Hash the next few MiB that are cached and trusted; False if there are none."""
        return self._hash.advance(lambda: self._trusted)

    def verify(self) -> bool:
        """Compare the whole with the digest. False: some blocks were damaged on the disk, and are
        missing now. Raises CacheFailed, and IntegrityError after content that the registry sent was
        removed from the cache.
        """
        matches = self._hash.matches()
        if not matches:
            # Either the disk or the registry is at fault. The checksums were computed from the
            # bytes as they arrived: if all blocks still match them, it is the registry.
            self.recheck()
            self.check(0, self.count)
            if not self.is_complete():
                return False
            if matches is None:
                matches = self._hash.matches()
        if matches is None:
            raise CacheFailed(f"cannot read {self.digest} from the cache's disk")
        if not matches:
            self.drop()
            raise IntegrityError(
                f"the content served for {self.digest} does not match the digest, and was dropped"
            )
        with contextlib.suppress(OSError):  # the next process verifies it again
            self.map.set_verified()
        return True

    def place(self) -> Path:
        """Move a verified blob to the whole blobs. Raises CacheFailed, CacheFull."""
        return placement.place(self._disk, self.digest, self.fd, self.map)

    def drop(self) -> None:
        """Remove both files."""
        placement.drop(self._disk, self.digest, self.fd, self.map)


def _open(disk: Disk, digest: Digest, size: int) -> BlobFiles:
    """The files of a partial blob. Raises CacheFailed, CacheFull."""
    try:
        return open_parts(disk, digest, size)
    except OSError as error:
        raise disk.explain(error, disk.partial(digest)) from None


def _write_all(
    disk: Disk, descriptor: int, pieces: Sequence[bytes | memoryview], offset: int, size: int
) -> None:
    """Write pieces of `size` bytes in all. Raises OSError."""
    written = disk.with_room(lambda: os.pwritev(descriptor, pieces, offset))
    if written < size:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            position = offset + size - len(rest)
            count = disk.with_room(partial(os.pwrite, descriptor, rest, position))
            rest = rest[count:]


def _checksums(pieces: Sequence[bytes | memoryview]) -> Iterator[int]:
    """The checksum of each block of the joined pieces."""
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
