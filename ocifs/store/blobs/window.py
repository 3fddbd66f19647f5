"""The blocks of a blob in memory: a window that moves with the readers of the blob.

Used for blobs that the disk does not store (`overflow.py`). Called like `BlobBlocks`, of which it
is one; `forget` is called in worker threads.

When memory is full, blocks are forgotten that were hashed and are not near a reader. So a blob that
is larger than the memory can be read from its start to its end.

- A forgotten block is missing: it is fetched again when it is read again.
- The running hash includes the forgotten blocks, so the whole is verified before its end is served.
- The SHA-256 of a forgotten block is kept. A block that is fetched again must have the same.
- The map is changed before the bytes are removed, so a reader never takes a hole for content.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from contextlib import suppress

from ocifs.errors import IntegrityError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.disk import Disk

# Bytes before and after the position of the last read that are only forgotten if there is no
# other content to forget.
_BEHIND, _LEAST = MIB, 2 * MIB


class WindowBlocks(BlobBlocks):
    """Blocks in memory, which can be forgotten."""

    forgets = True

    def __init__(self, disk: Disk, digest: Digest, size: int, memory: int) -> None:
        """`memory`: the size of the memory for all blobs."""
        super().__init__(disk, digest, size)
        # So that readahead does not displace the content of the next reads.
        self.most_ahead = max(_LEAST, memory // 4)
        # Blocks before this one were hashed, and may have been forgotten.
        self._passed = 0
        self._sums: dict[int, bytes] = {}

    def first_missing(self, start: int, stop: int) -> int | None:
        # Blocks before `_front` may have been forgotten since.
        return self.map.first_missing(start, stop)

    def is_complete(self) -> bool:
        missing = self.map.first_missing(self._passed, self.count)
        return missing is None

    def write(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """As `BlobBlocks.write`. Raises IntegrityError if a block differs from a forgotten one."""
        first = offset // BLOCK
        size = sum(map(len, pieces))
        if any(block in self._sums for block in range(first, first + -(-size // BLOCK))):
            view = memoryview(b"".join(pieces))
            for block, start in enumerate(range(0, size, BLOCK), first):
                known = self._sums.get(block)
                if known and hashlib.sha256(view[start : start + BLOCK]).digest() != known:
                    raise IntegrityError(f"the content of {self.digest} changes with each request")
            pieces = [view]
        super().write(offset, pieces)

    def verify(self) -> bool:
        """As `BlobBlocks.verify`. Wrong content in memory is never the fault of a disk."""
        if self._passed and not self._hash.matches():
            self.drop()
            raise IntegrityError(
                f"the content served for {self.digest} does not match the digest, and was dropped"
            )
        return super().verify()

    def inherit(self, other: BlobBlocks) -> None:
        """Continue the hash of the blob's blocks on the disk, which were read before. Blocks."""
        while other.hash_on():
            pass
        sums = {}
        for block in range(other._hash.blocks):
            content = other.read_sound(block * BLOCK, min(BLOCK, self.size - block * BLOCK))
            if content is None:
                return
            sums[block] = hashlib.sha256(content).digest()
        if self._hash.continue_from(other._hash, len(sums) * BLOCK):
            self._passed, self._sums = len(sums), sums

    def forget(self, wanted: int, *, nearby: bool = False) -> int:
        """Forget blocks of `wanted` bytes in all, or fewer. Returns the number of bytes.

        `nearby`: also those close to the position of the last read, which may be needed soon.

        Blocks that were hashed come first. The others make the blob incomplete, so they are
        forgotten only if there is nothing else.
        """
        with suppress(OSError):
            while self.hash_on():
                pass
        hashed = self._hash.blocks
        low = max(0, (self.position - (0 if nearby else _BEHIND)) // BLOCK)
        high = (self.position + (_LEAST if nearby else self.most_ahead)) // BLOCK
        candidates = [*range(min(low, hashed)), *range(min(high, hashed), hashed)]
        freed = self._forget_all(candidates, hashed, wanted)
        if not freed and nearby:
            others = [*range(hashed, low), *range(self.count - 1, max(high, hashed) - 1, -1)]
            freed = self._forget_all(others, hashed, wanted)
        return freed

    def _forget_all(self, blocks: Sequence[int], hashed: int, wanted: int) -> int:
        freed = 0
        for block in blocks:
            if freed >= wanted:
                break
            if self.has(block):
                freed += self._forget(block, hashed)
        return freed

    def _forget(self, block: int, hashed: int) -> int:
        start = block * BLOCK
        length = min(BLOCK, self.size - start)
        content = self.read_sound(start, length)
        if content is None:
            return 0
        self._sums.setdefault(block, hashlib.sha256(content).digest())
        if block < hashed:
            self._passed = max(self._passed, block + 1)
        self._trusted[block] = 0
        self.map.clear(block)
        # Python has no fallocate with holes. MADV_REMOVE does the same (madvise(2)).
        with mmap.mmap(self.fd, length, offset=start) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)
        return length
