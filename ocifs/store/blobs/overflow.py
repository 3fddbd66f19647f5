"""Memory for blobs that the disk does not store or does not return, while they are open.

`open` blocks and runs in a worker thread; the rest is used in the event loop. These blobs are not
cached: each reader that opens one later fetches it again.

- They are verified by the same code as on disk.
- All of them together are bounded.
- Their files have no name, so a process that is killed leaves nothing behind.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ocifs.errors import CacheFull, OcifsError
from ocifs.oci.digest import Digest
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.disk import Disk

T = TypeVar("T")

log = logging.getLogger("ocifs.store")

# A directory in memory. Unlike bytes in Python, its files have descriptors. Names in it are made by
# mkdtemp and removed at once.
_MEMORY = Path("/dev/shm")  # noqa: S108


class _MemoryDirectory(Disk):
    """A directory in memory. It is full when all blobs in `files` have `most` bytes together."""

    def __init__(self, directory: Path, files: set[BlobBlocks], most: int) -> None:
        super().__init__(directory)
        self._files = files
        self._most = most

    def with_room(self, write: Callable[[], T]) -> T:
        used = 0
        # A copy, since other threads change the set meanwhile.
        for blocks in list(self._files):
            try:
                used += os.fstat(blocks.fd).st_blocks * 512
            except OSError:
                continue  # it is being closed
        if used >= self._most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write()


class Overflow:
    """Blobs in memory, at most `most` bytes. `spilled` are their digests, while they are open."""

    def __init__(self, most: int) -> None:
        self.spilled: set[Digest] = set()
        self._most = most
        self._files: set[BlobBlocks] = set()
        self._warned = False

    def spill(self, digest: Digest, error: OcifsError) -> None:
        """Hold a blob in memory from now on, since the disk failed with this error."""
        self.spilled.add(digest)
        if not self._warned:
            self._warned = True
            log.warning("%s: reading into memory, without caching", error)

    def open(self, digest: Digest, size: int) -> BlobBlocks:
        """Empty files for a spilled blob. Blocks.

        Raises CacheFull, also if the system has no such memory.
        """
        try:
            directory = Path(tempfile.mkdtemp(prefix="ocifs-", dir=_MEMORY))
        except OSError:
            raise CacheFull(
                f"the cache's disk is full, and {_MEMORY} cannot be used instead"
            ) from None
        try:
            blocks = BlobBlocks(_MemoryDirectory(directory, self._files, self._most), digest, size)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self._files.add(blocks)
        return blocks

    def closed(self, blocks: BlobBlocks) -> None:
        """Forget a blob. Its files are about to be closed."""
        self._files.discard(blocks)
        self.spilled.discard(blocks.digest)
