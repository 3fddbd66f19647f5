"""A blob of which some blocks are here: a sparse file, and a map that says which blocks, with a checksum each.

Any number of processes have both open and see at once what one of them brings; spans are locked by whoever fetches them (blockmap.py).
Nothing is synced while blocks come: after a crash or a power cut a block whose content did not reach the disk fails its checksum, and is
fetched again. When the whole is verified both files move to their places, and the checksums tell from then on whether the disk rots.

Rules that hold here: a block counts as here only after its bytes were written; a block that this process did not write is checked once
before it is believed; the whole is checked against the digest before it gets its place among the whole blobs; files are moved under the
lock of the map's header, and only those that this process has open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from isal import isal_zlib

from ocifs.errors import IntegrityError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blockmap import BLOCK, BlockMap, find_map, header_of, is_at, is_map, map_length, within
from ocifs.store.disk import TEMPORARY, Disk, hold, of_disk

_MAX_PIECES = 512  # the kernel takes 1,024 in one call
_HASHED_BLOCKS = 4 * MIB // BLOCK
_OPENINGS = 100  # tries to open what others take away


class Partial:
    """The parts of one blob. Methods block, and may be called from several threads at once.

    `whole`: it lies among the whole blobs already, with its checksums; raises FileNotFoundError where it does not.
    """

    def __init__(self, disk: Disk, digest: Digest, size: int, *, whole: bool = False) -> None:
        self.digest = digest
        self.size = size
        self.blocks = -(-size // BLOCK)
        self._disk = disk
        self._path = disk.whole(digest) if whole else disk.partial(digest)
        self._map_path = disk.sums(digest) if whole else disk.partial_map(digest)
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self.mistrust()
        if whole:
            self._open_whole()
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise of_disk(error, self._path) from None

    def mistrust(self) -> None:
        """Believe nothing that was checked or hashed before."""
        with self._hashing:
            self._hasher = self.digest.hasher()
            self._hashed = 0
            self._front = 0
            self._checked = bytearray(self.blocks)

    def _open_whole(self) -> None:
        self.fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        found = find_map(self._map_path, self.size) if os.fstat(self.fd).st_size == self.size else None
        if found is None:
            os.close(self.fd)
            raise FileNotFoundError(errno.ENOENT, "no checksums are kept for it", str(self._map_path))
        self.map = found
        hold(self.fd)

    def _open(self) -> None:
        for _ in range(_OPENINGS):
            self.map = self._open_map()
            try:
                with self.map.header():
                    # Else it was evicted or found its place meanwhile, and a file that is made here would belong to another map.
                    if is_at(self._map_path, self.map.descriptor):
                        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                        hold(self.fd)
                        if os.fstat(self.fd).st_size != self.size:
                            os.ftruncate(self.fd, self.size)
                        return
            except OSError:
                self.map.close()
                raise
            self.map.close()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _open_map(self) -> BlockMap:
        found: list[BlockMap] = []

        def attempt() -> bool:
            opened = find_map(self._map_path, self.size)
            if opened is None:
                self._make_map()
            else:
                found.append(opened)
            return bool(found)

        within(attempt)
        return found[0]

    def _make_map(self) -> None:
        """Put a map of nothing in its place, at once in full; one that is of another size or format goes, and its content."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._map_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if is_map(descriptor, self.size) and is_at(self._map_path, descriptor):
                    return  # another process has just made it, or is about to evict it
            finally:
                os.close(descriptor)
            _unlink(self._path, self._map_path)
        number, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=TEMPORARY)
        try:
            # All of it now: a hole that could not be filled later, on a full disk, would kill the process with SIGBUS.
            self._disk.with_room(lambda: os.posix_fallocate(number, 0, map_length(self.size)))
            os.pwrite(number, header_of(self.size), 0)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._map_path)
        finally:
            os.close(number)
            _unlink(Path(temporary))

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
        """Whether every block is here. Each block is looked at once, however often this is asked."""
        while self._front < self.blocks and self.has(self._front):
            self._front += 1
        return self._front == self.blocks

    def is_trusted(self, start: int, stop: int) -> bool:
        """Whether the blocks [start, stop) were all checked, or fetched, by this process."""
        return 0 not in self._checked[start:stop]

    def check(self, start: int, stop: int) -> None:
        """Check what others have left in [start, stop); what fails is missing from now on.

        A block that another process is at stays as it is, and is not trusted.
        """
        for block in range(start, stop):
            if self._checked[block]:
                continue
            checksum = self.map.checksum(block)
            if checksum is not None and self._is_sound(block, checksum):
                continue
            self._front = min(self._front, block)
            # What is not here is not locked: it may be on its way to this process, whose lock would end with this one.
            if checksum is not None and self.map.lock(block, block + 1) > block:
                checksum = self.map.checksum(block)
                if checksum is not None and not self._is_sound(block, checksum):
                    self.map.clear(block)
                self.map.unlock(block, block + 1)

    def _is_sound(self, block: int, checksum: int) -> bool:
        if isal_zlib.crc32(os.pread(self.fd, BLOCK, block * BLOCK)) != checksum:
            return False
        self._checked[block] = 1
        return True

    def are_sound(self, first: int, content: memoryview) -> bool:
        """Whether content that was read, from the start of a block on, has the checksums of its blocks."""
        return all(
            self.map.checksum(block) == isal_zlib.crc32(content[start : start + BLOCK])
            for block, start in enumerate(range(0, len(content), BLOCK), first)
        )

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
            self.map.put(block, checksum)
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

    def check_and_verify(self) -> bool:
        """`verify`, after what this process has neither written nor checked was checked: it may not have reached the disk."""
        if not self.is_trusted(0, self.blocks):
            self.check(0, self.blocks)
            if not self.is_complete():
                return False
        return self.verify()

    def verify(self) -> bool:
        """Check the whole; False where blocks were found damaged on the disk, which are missing from now on.

        Raises IntegrityError where what was served is wrong, after which nothing of it is left.
        """
        with self._hashing:
            self._hash_until(self.size)
            good = self._hashed == self.size and self._hasher.hexdigest() == self.digest.encoded
        if good:
            self.map.set_verified()
            return True
        self.mistrust()
        self.check(0, self.blocks)
        if not self.is_complete():
            return False
        self.drop()
        raise IntegrityError(f"what was served for {self.digest} has other content; it was dropped")

    def place(self) -> Path:
        """Give what was verified its place among the whole blobs, and its map one among the checksums; where the whole is.

        After a crash between the two the checksums are found where they were (`adopt`).
        """
        target, sums = self._disk.whole(self.digest), self._disk.sums(self.digest)
        try:
            if self._path != target and not is_at(self._path, self.fd):
                return (
                    target  # another process was first; or it is in memory, or cleared by force: the name is not ours
                )
            for path in (target, sums):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.fdatasync(self.fd)
            self.map.sync()
            with self.map.header():
                if self._path != target and is_at(self._path, self.fd):
                    os.rename(self._path, target)
                    os.rename(self._map_path, sums)
        except OSError as error:
            raise of_disk(error, target) from None
        return target

    def drop(self) -> None:
        """Take everything away, wherever it is by now."""
        for path in (self._disk.sums(self.digest), self._disk.partial_map(self.digest)):
            if is_at(path, self.map.descriptor):
                _unlink(path)
        for path in (self._disk.whole(self.digest), self._disk.partial(self.digest)):
            if is_at(path, self.fd):
                _unlink(path)


def adopt(disk: Disk, digest: Digest) -> None:
    """Give the checksums of a whole blob their place, where a crash kept them from it."""
    left = disk.partial_map(digest)
    if not disk.sums(digest).exists() and left.exists() and not disk.partial(digest).exists():
        with contextlib.suppress(OSError):
            disk.sums(digest).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(left, disk.sums(digest))


def _unlink(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


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
