"""A blob of which some blocks are cached: a sparse file, and a map that records which, with a
checksum each.

Methods run in worker threads, those that read only the map also in the event loop. Any number of
processes have both files open (`files.py`) and see at once what one of them writes; spans are
locked by the process that fetches them (`blockmap.py`).

Nothing is synced while blocks arrive: after a crash or a power cut a block whose content did not
reach the disk fails its checksum, and is fetched again. When the whole is verified both files move
to their places, and the checksums show from then on whether the disk rots.

Rules that hold here:
- a block is cached only after its bytes were written; a block that this process did not write is
  checked once before it is believed;
- a block that cannot be read is a damaged one; an error of the disk is CacheFailed or CacheFull,
  never an OSError;
- the whole is checked against the digest before it gets its place among the whole blobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from isal import isal_zlib

from ocifs.concurrency import check_cancelled
from ocifs.errors import CacheFailed, IntegrityError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK, is_at
from ocifs.store.blobs.files import BlobFiles, open_parts
from ocifs.store.disk import Disk, disk_error, make_directory, remove_paths

_MAX_PIECES = 512  # the kernel takes 1,024 in one call
_HASHED_BLOCKS = 4 * MIB // BLOCK
_HEADER_TRIES = 500  # ten milliseconds apart


class Partial:
    """The blocks of one blob. Methods block, and may be called from several threads at once.

    `files`: the open files; without them those of the blob's parts are opened. Raises CacheFailed,
    CacheFull.
    """

    def __init__(
        self, disk: Disk, digest: Digest, size: int, files: BlobFiles | None = None
    ) -> None:
        self.digest = digest
        self.size = size
        self.blocks = -(-size // BLOCK)
        self._disk = disk
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self.recheck()
        if files is None:
            try:
                files = open_parts(disk, digest, size)
            except OSError as error:
                raise disk_error(error, disk.partial(digest)) from None
        self.fd, self.map = files.descriptor, files.map

    def recheck(self) -> None:
        """Forget what was checked or hashed before."""
        with self._hashing:
            self._hasher = self.digest.hasher()
            self._hashed = 0
            self._front = 0
            self._checked = bytearray(self.blocks)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)

    def has(self, block: int) -> bool:
        """Whether a block is here. Cheap."""
        return self.map.has(block)

    def is_empty(self) -> bool:
        """Whether no block is here."""
        return self.map.is_empty()

    def first_missing(self, start: int, stop: int) -> int | None:
        """The first block in [start, stop) that is not here."""
        start = max(self._front, start)  # every block before it is here
        return self.map.first_missing(start, stop)

    def is_complete(self) -> bool:
        """Whether every block is here.

        Each block is looked at once, however often this is asked.
        """
        missing = self.map.first_missing(self._front, self.blocks)
        self._front = self.blocks if missing is None else missing
        return missing is None

    def is_trusted(self, start: int, stop: int) -> bool:
        """Whether the blocks [start, stop) were all checked, or fetched, by this process."""
        return 0 not in self._checked[start:stop]

    def check(self, start: int, stop: int) -> None:
        """Check blocks in [start, stop) that other processes have written; one that fails is
        missing from now on.

        A block that another process has locked stays as it is, and is not trusted. Raises
        CacheFailed where the map cannot be written.
        """
        for block in range(start, stop):
            if self._checked[block]:
                continue
            checksum = self.map.checksum(block)
            if checksum is not None and self._is_sound(block, checksum):
                continue
            self._front = min(self._front, block)
            # A missing block is not locked: it may be on its way to this process, whose lock would
            # end with this one.
            if checksum is not None and self.map.lock(block, block + 1) > block:
                try:
                    self._recheck(block)
                finally:
                    self.map.unlock(block, block + 1)

    def _recheck(self, block: int) -> None:
        checksum = self.map.checksum(block)
        if checksum is not None and not self._is_sound(block, checksum):
            try:
                self.map.clear(block)
            except OSError as error:
                raise disk_error(error, self._disk.partial_map(self.digest)) from None

    def disown(self, start: int, stop: int) -> None:
        """Forget blocks in [start, stop) that fail their checksums, also where another process has
        them locked. Raises CacheFailed.
        """
        for block in range(start, stop):
            if not self._checked[block]:
                self._recheck(block)

    def _is_sound(self, block: int, checksum: int) -> bool:
        try:
            content = os.pread(self.fd, BLOCK, block * BLOCK)
        except OSError:
            return False
        if isal_zlib.crc32(content) != checksum:
            return False
        self._checked[block] = 1
        return True

    def read_sound(self, start: int, size: int) -> memoryview | None:
        """Bytes from the start of a block on, if each block has its checksum; None otherwise."""
        try:
            content = memoryview(os.pread(self.fd, size, start))
        except OSError:
            return None
        return content if len(content) == size and self.are_sound(start // BLOCK, content) else None

    def are_sound(self, first: int, content: memoryview) -> bool:
        """Whether content that was read, from the start of a block on, has the checksums of its
        blocks.
        """
        wanted = self.map.checksums(first, first + -(-len(content) // BLOCK))
        starts = range(0, len(content), BLOCK)
        return wanted == [isal_zlib.crc32(content[start : start + BLOCK]) for start in starts]

    def write(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Keep bytes, in pieces of any length, that begin at a block's start and end at a block's
        or the blob's end.

        Blocks that are here already stay as they are, since they may have been hashed or served.
        """
        with self._lock:
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
            done = self._disk.with_room(lambda: os.pwritev(self.fd, pieces, offset))
            if done < size:
                rest = memoryview(b"".join(pieces))[done:]
                while rest:
                    count = self._disk.with_room(
                        partial(os.pwrite, self.fd, rest, offset + size - len(rest))
                    )
                    rest = rest[count:]
            first, checksums = offset // BLOCK, list(_checksums(pieces))
            self._checked[first : first + len(checksums)] = b"\1" * len(checksums)
            self._disk.with_room(lambda: self.map.put(first, checksums))
            if self.map.first_missing(first, first + len(checksums)) is not None:
                raise OSError(errno.EIO, "the map of a blob does not keep what was written to it")  # noqa: TRY301
        except OSError as error:
            raise disk_error(error, self._disk.partial(self.digest)) from None
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
        """Hash the next bytes in order, as far as they are cached, a few MiB at a time; whether
        there were any.
        """
        with self._hashing:
            first = self._hashed // BLOCK
            stop = self._checked.find(0, first, first + _HASHED_BLOCKS)
            end = min(
                self.size, (min(self.blocks, first + _HASHED_BLOCKS) if stop < 0 else stop) * BLOCK
            )
            began = self._hashed
            with contextlib.suppress(OSError):  # `verify` meets it again
                self._hash_until(end)
            return self._hashed > began

    def _hash_until(self, end: int) -> None:
        """Raises OSError, also where the file is shorter."""
        while self._hashed < end:
            piece = os.pread(self.fd, min(MIB, end - self._hashed), self._hashed)
            if not piece:
                raise OSError(errno.EIO, "the file was truncated")
            self._hasher.update(piece)
            self._hashed += len(piece)
            check_cancelled()

    def check_and_verify(self) -> bool:
        """`verify`, after blocks that this process has neither written nor checked were checked:
        they may not have reached the disk.
        """
        if not self.is_trusted(0, self.blocks):
            self.check(0, self.blocks)
            if not self.is_complete():
                return False
        return self.verify()

    def verify(self) -> bool:
        """Check the whole; False where blocks were found damaged on the disk, which are missing
        from now on.

        Raises IntegrityError where the bytes that came are wrong, after which none of them are
        cached, and CacheFailed.
        """
        good = self._has_digest()
        if not good:
            self.recheck()
            self.check(0, self.blocks)
            if not self.is_complete():
                return False
            if good is None:
                good = self._has_digest()
        if good is None:
            raise CacheFailed(f"cannot read {self.digest} from the cache's disk")
        if not good:
            self.drop()
            raise IntegrityError(
                f"what was served for {self.digest} has other content; it was dropped"
            )
        with contextlib.suppress(OSError):  # the next process verifies it again
            self.map.set_verified()
        return True

    def _has_digest(self) -> bool | None:
        """None where it cannot be read."""
        with self._hashing:
            try:
                self._hash_until(self.size)
            except OSError:
                return None
            return self._hasher.hexdigest() == self.digest.encoded

    def place(self) -> Path:
        """Move a verified blob among the whole blobs, and its map among the checksums; the path of
        the whole.

        After a crash between the two the checksums are found where they were. Raises CacheFailed,
        CacheFull.
        """
        target, sums, path = (
            self._disk.whole(self.digest),
            self._disk.whole_map(self.digest),
            self._disk.partial(self.digest),
        )
        try:
            if not is_at(path, self.fd):
                # it is in its place, or in memory, or was cleared by force: the name is not ours
                return target
            for each in (target, sums):
                make_directory(each.parent)
            os.fdatasync(self.fd)
            self.map.sync()
            if self._wait_for_header():
                try:
                    if is_at(path, self.fd):
                        _move(path, target)
                        _move(self._disk.partial_map(self.digest), sums)
                finally:
                    self.map.unlock_header()
        except OSError as error:
            raise disk_error(error, target) from None
        return target

    def _wait_for_header(self) -> bool:
        """Other processes hold it for moments only.

        One that was stopped in such a moment keeps the blob from its place, not from use.
        """
        for _ in range(_HEADER_TRIES):
            if self.map.try_lock_header():
                return True
            time.sleep(0.01)  # such locks have no time limit of their own
        return False

    def drop(self) -> None:
        """Remove both files, wherever they are by now."""
        for path in (self._disk.whole_map(self.digest), self._disk.partial_map(self.digest)):
            if is_at(path, self.map.descriptor):
                remove_paths(path)
        for path in (self._disk.whole(self.digest), self._disk.partial(self.digest)):
            if is_at(path, self.fd):
                remove_paths(path)


def _move(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
    except IsADirectoryError:
        remove_paths(target)
        os.rename(path, target)


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
