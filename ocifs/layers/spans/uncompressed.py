"""Uncompressed tars in the derived cache, for layers without checkpoints.

The event loop finds, holds and releases tars. Files are opened and read in worker threads.

Rules:

- A tar that is open stays readable when it is evicted.
- The number of open tars is bounded.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress

import trio
from cachetools import LRUCache

from ocifs.concurrency import in_thread
from ocifs.content import DerivedCache
from ocifs.errors import CacheFailed, IntegrityError
from ocifs.oci.digest import Digest

TAR_KIND = "layer-plain.1"
_MAX_OPEN = 128


class UncompressedTar:
    """An open tar. It is closed with its last reference, so after the last read of it."""

    __slots__ = ("_descriptor", "last_used")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.last_used = 0.0

    def note_use(self) -> None:
        """Update the file's modification time, by which eviction chooses."""
        with suppress(OSError):
            os.utime(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)

    async def read(self, start: int, size: int) -> bytes:
        """Read bytes [start, start+size). Raises CacheFailed; IntegrityError if it is shorter."""
        self.last_used = trio.current_time()
        return await in_thread(self._read, start, size)

    def _read(self, start: int, size: int) -> bytes:
        try:
            piece = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise CacheFailed(
                f"cannot read the cache: {error.strerror}", hint="check the cache's disk"
            ) from None
        if len(piece) != size:
            raise IntegrityError("an uncompressed layer in the cache is truncated")
        return piece


class UncompressedTars:
    """The open tars, by the digests of their layers."""

    def __init__(self, derived: DerivedCache) -> None:
        self._derived = derived
        self._open: LRUCache[Digest, UncompressedTar] = LRUCache(_MAX_OPEN)
        self._acquired: Counter[Digest] = Counter()

    async def find(self, digest: Digest) -> UncompressedTar | None:
        """Return the tar of a layer if it is in the cache."""
        tar = self._open.get(digest) or await in_thread(self._find, digest)
        if tar is not None:
            self._open[digest] = tar
        return tar

    def _find(self, digest: Digest) -> UncompressedTar | None:
        file = self._derived.find(TAR_KIND, digest)
        if file is None:
            return None
        # If no descriptor is left, the tar is treated as missing.
        with file, suppress(OSError):
            return UncompressedTar(os.dup(file.fileno()))
        return None

    def discard(self, digest: Digest) -> None:
        """Do not use the open tar of a layer again."""
        self._open.pop(digest, None)

    def acquire(self, digest: Digest) -> None:
        """Keep the layer's tar open: a file of the layer was opened."""
        self._acquired[digest] += 1

    def release(self, digest: Digest) -> None:
        """Undo one `acquire`."""
        if self._acquired[digest] > 1:
            self._acquired[digest] -= 1
        else:
            del self._acquired[digest]

    def close_idle(self, idle: float) -> None:
        """Close tars that are not acquired and were not read for `idle` seconds; touch the rest."""
        now = trio.current_time()
        for digest, tar in list(self._open.items()):
            if digest in self._acquired or now - tar.last_used < idle:
                tar.note_use()
            else:
                del self._open[digest]
