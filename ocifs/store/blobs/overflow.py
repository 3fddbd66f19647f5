"""Memory for blobs that the disk does not store or does not return, while they are open.

`open` blocks and runs in a worker thread; the rest is used in the event loop. These blobs are not
cached: each reader that opens one later fetches it again.

- They are verified by the same code as on disk.
- All of them together are bounded. When the memory is full, blocks that were read are forgotten
  (`window.py`).
- Their files have no name, so a process that is killed leaves nothing behind.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ocifs.errors import CacheFull, OcifsError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.window import WindowBlocks
from ocifs.store.disk import Disk

T = TypeVar("T")

log = logging.getLogger("ocifs.store")

# A directory in memory. Unlike bytes in Python, its files have descriptors. Names in it are made by
# mkdtemp and removed at once.
_MEMORY = Path("/dev/shm")  # noqa: S108
# Bytes that are forgotten at a time: each time costs a look at all blocks.
_FORGET = 32 * MIB


class _MemoryDirectory(Disk):
    """A directory in memory. It is full when all blobs in `files` have `most` bytes together."""

    def __init__(self, directory: Path, files: set[WindowBlocks], overflow: Overflow) -> None:
        super().__init__(directory)
        self._cache = overflow.cache
        self._forgets = overflow.forgets
        self._files = files
        self._most = overflow.most

    def explain(self, error: OSError, path: Path) -> OcifsError:
        return CacheFull(
            f"the cache's disk is full ({self._cache}), and so is the memory for reads without it",
            hint="free some space, or choose another directory with --cache-dir",
        )

    def with_room(self, write: Callable[[], T]) -> T:
        if self._used() >= self._most and not self._forget():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            return write()
        except OSError as error:
            # The memory may be smaller than `most`: 64 MiB in a container of Docker.
            if error.errno != errno.ENOSPC or not self._forget():
                raise
        return write()

    def _used(self) -> int:
        used = 0
        # A copy, since other threads change the set meanwhile.
        for blocks in list(self._files):
            with suppress(OSError):  # it is being closed
                used += os.fstat(blocks.fd).st_blocks * 512
        return used

    def _forget(self) -> bool:
        """Forget blocks; False if none can be forgotten."""
        wanted, freed = min(_FORGET, self._most // 2), 0
        for nearby in (False, True) if self._forgets else ():
            for blocks in list(self._files):
                with suppress(OSError, ValueError):  # it is being closed
                    freed += blocks.forget(wanted - freed, nearby=nearby)
            if freed:
                return True
        return False


class Overflow:
    """Blobs in memory, at most `most` bytes. `spilled` are their digests, while they are open.

    `forgets`: blocks that were read make room for others, so a blob need not be in memory as a
    whole. `cache` is the cache's own directory, for messages.
    """

    def __init__(self, cache: Path, most: int, *, forgets: bool = True) -> None:
        self.spilled: set[Digest] = set()
        self.cache = cache
        self.most = most
        self.forgets = forgets
        self._files: set[WindowBlocks] = set()
        self._warned = False

    def spill(self, digest: Digest, error: OcifsError) -> None:
        """Hold a blob in memory from now on, since the disk failed with this error."""
        self.spilled.add(digest)
        if not self._warned:
            self._warned = True
            log.warning("%s: reading into memory, without caching", error)

    def open(self, digest: Digest, size: int, on_disk: BlobBlocks | None) -> WindowBlocks:
        """Empty files for a spilled blob. Blocks.

        `on_disk`: its blocks on the disk, some of which were read. Raises CacheFull, also if the
        system has no such memory.
        """
        try:
            directory = Path(tempfile.mkdtemp(prefix="ocifs-", dir=_MEMORY))
        except OSError:
            raise CacheFull(
                f"the cache's disk is full, and {_MEMORY} cannot be used instead"
            ) from None
        try:
            memory = _MemoryDirectory(directory, self._files, self)
            blocks = WindowBlocks(memory, digest, size, self.most)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if on_disk is not None:
            blocks.inherit(on_disk)
        self._files.add(blocks)
        return blocks

    def closed(self, blocks: WindowBlocks) -> None:
        """Forget a blob. Its files are about to be closed."""
        self._files.discard(blocks)
        self.spilled.discard(blocks.digest)
