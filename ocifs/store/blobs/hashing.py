"""The hash of a blob, computed while its bytes arrive in any order.

Called from worker threads, by several at once.

- Bytes are hashed in order, each once. Bytes that arrive in order are hashed while they are in
  memory; the others are read back from the file.
- Only blocks that the caller trusts are hashed ahead of the final comparison.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ocifs.concurrency import check_cancelled
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK

_AT_ONCE = 4 * MIB // BLOCK


class RunningHash:
    """The hash of the first `hashed` bytes of a file."""

    def __init__(self, digest: Digest, size: int, descriptor: int) -> None:
        self._digest = digest
        self._size = size
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Begin again, since bytes that were hashed may have changed."""
        with self._lock:
            self._hasher = self._digest.hasher()
            self.hashed = 0

    @property
    def blocks(self) -> int:
        """The number of whole blocks, at the start, that were hashed."""
        return -(-self._size // BLOCK) if self.hashed == self._size else self.hashed // BLOCK

    def continue_from(self, other: RunningHash, position: int) -> bool:
        """Continue the hash of another file of the same blob, which has hashed up to `position`.

        False if it has hashed more or less by now, or everything.
        """
        with other._lock, self._lock:
            if other.hashed != position or position >= self._size:
                return False
            self._hasher, self.hashed = other._hasher.copy(), position
            return True

    def update(self, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Hash bytes that were just written, if they are next and no other thread is hashing."""
        # A writer never waits for a thread that hashes: `advance` reads these bytes back later.
        if self._lock.acquire(blocking=False):
            try:
                if self.hashed == offset:
                    for piece in pieces:
                        self._hasher.update(piece)
                        self.hashed += len(piece)
            finally:
                self._lock.release()

    def can_advance(self, trusted: bytearray) -> bool:
        """Whether the next block is trusted, given a byte for each block. Cheap."""
        return self.hashed < self._size and trusted[self.hashed // BLOCK] == 1

    def advance(self, trusted: Callable[[], bytearray]) -> bool:
        """Hash the next blocks, a few MiB at most, as far as they are trusted; False if none is.

        `trusted` is called with the lock held: after a restart, blocks that were trusted before may
        not be so any longer. A read error ends it early; `matches` meets and reports the same one.
        """
        with self._lock:
            start = self.hashed
            first = start // BLOCK
            blocks = trusted()
            last = min(len(blocks), first + _AT_ONCE)
            untrusted = blocks.find(0, first, last)
            end = min(self._size, (last if untrusted < 0 else untrusted) * BLOCK)
            with suppress(OSError):
                self._hash_until(end)
            return self.hashed > start

    def matches(self) -> bool | None:
        """Whether the whole file has the digest, or None if it cannot be read."""
        with self._lock:
            try:
                self._hash_until(self._size)
            except OSError:
                return None
            return self._hasher.hexdigest() == self._digest.encoded

    def _hash_until(self, end: int) -> None:
        while self.hashed < end:
            piece = os.pread(self._descriptor, min(MIB, end - self.hashed), self.hashed)
            # Without this a file that was truncated would be hashed for ever.
            if not piece:
                raise OSError(errno.EIO, "the file was truncated")
            self._hasher.update(piece)
            self.hashed += len(piece)
            check_cancelled()
