"""Plain tars of layers on the shelf: of those whose compression cannot be entered in the middle.

Rules that hold here: a tar that is open stays readable when it is evicted; how many are open is
bounded.
"""

from __future__ import annotations

import os
from contextlib import suppress

import trio

from ocifs.concurrency import in_thread
from ocifs.content import DerivedCache
from ocifs.errors import CacheFailed, IntegrityError
from ocifs.oci.digest import Digest

PLAIN = "layer-plain.1"
_OPEN = 128  # plain tars that are open at a time


class UncompressedTar:
    """An open plain tar. It is closed when nobody reads from it any more."""

    __slots__ = ("_descriptor", "last_used")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.last_used = 0.0

    def note_use(self) -> None:
        """Say on disk that it is used, for whoever looks for what to evict."""
        with suppress(OSError):
            os.utime(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)

    async def read(self, start: int, size: int) -> bytes:
        """Bytes [start, start+size). Raises IntegrityError where it has less, CacheFailed."""
        self.last_used = trio.current_time()
        return await in_thread(self._exactly, start, size)

    def _exactly(self, start: int, size: int) -> bytes:
        try:
            piece = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise CacheFailed(
                f"cannot read the cache: {error.strerror}", hint="check the disk that it is on"
            ) from None
        if len(piece) != size:
            raise IntegrityError("an unpacked layer in the cache is shorter than it was")
        return piece


class UncompressedTars:
    """The plain tars that are open, by the digests of their layers."""

    def __init__(self, shelf: DerivedCache) -> None:
        self._shelf = shelf
        self._open: dict[Digest, UncompressedTar] = {}
        self._held: dict[Digest, int] = {}

    async def find(self, digest: Digest) -> UncompressedTar | None:
        """The plain tar of a layer, where it is kept."""
        plain = self._open.get(digest) or await in_thread(self._find, digest)
        if plain is not None:
            self._open[digest] = plain
        while len(self._open) > _OPEN:  # readers still hold those that they read from
            del self._open[next(iter(self._open))]
        return plain

    def _find(self, digest: Digest) -> UncompressedTar | None:
        file = self._shelf.find(PLAIN, digest)
        if file is None:
            return None
        with file, suppress(OSError):  # no further descriptor
            return UncompressedTar(os.dup(file.fileno()))
        return None

    def discard(self, digest: Digest) -> None:
        """The one that is open is not to be used any more."""
        self._open.pop(digest, None)

    def acquire(self, digest: Digest) -> None:
        """Somebody opened a file of the layer."""
        self._held[digest] = self._held.get(digest, 0) + 1

    def release(self, digest: Digest) -> None:
        """Somebody who opened a file of the layer closed it."""
        left = self._held.pop(digest, 0) - 1
        if left > 0:
            self._held[digest] = left

    def close_idle(self, idle: float) -> None:
        """Let go of plain tars that nobody has open or has read for `idle` seconds; note on disk
        that the others are used.
        """
        now = trio.current_time()
        for digest, plain in list(self._open.items()):
            if digest in self._held or now - plain.last_used < idle:
                plain.note_use()
            else:
                del self._open[digest]
