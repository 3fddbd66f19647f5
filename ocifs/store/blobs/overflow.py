"""Where blobs go that the disk does not take or does not give back: memory, for as long as they are
read. None of them are cached.

Rules that hold here: verified as on disk, by the same code; bounded over all blobs; files without a
name, so that a process that is killed leaves nothing.
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
from ocifs.store.blobs.open_blob import OpenBlob
from ocifs.store.blobs.partial import Partial
from ocifs.store.disk import Disk

T = TypeVar("T")

log = logging.getLogger("ocifs.store")

_MEMORY = Path("/dev/shm")  # noqa: S108 (memory that has file descriptors; what lies there is made by mkdtemp and removed at once)


class _Bounded(Disk):
    """A directory in memory which is full when the `files` of all such directories together have
    `most` bytes.
    """

    def __init__(self, directory: Path, files: set[Partial], most: int) -> None:
        super().__init__(directory)
        self._files = files
        self._most = most

    def with_room(self, write: Callable[[], T]) -> T:
        taken = 0
        for each in list(self._files):
            try:
                taken += os.fstat(each.fd).st_blocks * 512
            except OSError:
                continue  # it is being closed
        if taken >= self._most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write()


class Overflow:
    """Room in memory. `spilled`: the blobs that lie there, for as long as they are open."""

    def __init__(self, most: int) -> None:
        self.spilled: set[Digest] = set()
        self._most = most
        self._files: set[Partial] = set()
        self._said = False

    def spill(self, digest: Digest, error: OcifsError) -> None:
        """The disk takes no more of a blob, or does not give it back: what is read of it from now
        on is held in memory.
        """
        self.spilled.add(digest)
        if not self._said:
            self._said = True
            log.warning("%s: what is read is held in memory, and not cached", error)

    def open(self, opened: OpenBlob, digest: Digest) -> None:
        """Give a spilled blob its place, of which nothing is here yet.

        Blocks. Raises CacheFull, also where there is no such memory.
        """
        try:
            made = Path(tempfile.mkdtemp(prefix="ocifs-", dir=_MEMORY))
        except OSError:
            raise CacheFull(
                "the cache's disk is full, and no memory can be had in its place"
            ) from None
        try:
            partial = Partial(_Bounded(made, self._files, self._most), digest, opened.size)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        self._files.add(partial)

        def closed() -> None:
            self._files.discard(partial)
            self.spilled.discard(digest)

        opened.partial, opened.on_close = partial, closed
        opened.served = True  # bytes of the blob may have been served from the disk
