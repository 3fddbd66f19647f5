"""Files with all data of EROFS images, for mounts that need no daemon.

A file is cached as `erofs-data.1`, under the digest of its image. It has the bytes of the data
device, and 64 bytes with the SHA-256 of them, which the kernel ignores. It is as large as the
unpacked files, and is written only if it is asked for.

Tasks of a mount call `get` on the event loop. Files are read and written in worker threads.

Rules:

- Every byte was verified when it was written, and is compared again when the file is opened. A
  mount that uses the file reads it without a verification.
- An open file is locked against eviction. A mount of it stays usable after an eviction, and its
  space is freed when the mount ends.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import BinaryIO

import trio

from ocifs.concurrency import check_cancelled, in_thread
from ocifs.content import DerivedCache
from ocifs.errors import CacheFailed
from ocifs.layers.waiting import run_with_progress
from ocifs.oci.digest import Digest
from ocifs.settings import MIB

log = logging.getLogger("ocifs.layers")

KIND = "erofs-data.1"
_DIGEST_SIZE = 64


class DataFiles:
    """The files of images, in a DerivedCache."""

    def __init__(self, derived: DerivedCache) -> None:
        self._derived = derived

    async def get(
        self, image: Digest, size: int, read: Callable[[int, int], Awaitable[bytes]]
    ) -> BinaryIO:
        """Open the file of an image; write it if it is not cached. The caller closes it.

        `read` returns a range of the data. Raises its errors, CacheFull and CacheFailed.
        """
        file = await run_with_progress(lambda: self._find(image, size))
        if file is None:
            await in_thread(self._write, image, size, read)
            file = await run_with_progress(lambda: self._find(image, size))
        if file is None:
            raise CacheFailed(
                f"the cache does not keep the data of the image {image}",
                hint="check the disk of the cache directory",
            )
        return file

    def _write(
        self, image: Digest, size: int, read: Callable[[int, int], Awaitable[bytes]]
    ) -> None:
        hasher = hashlib.sha256()
        with self._derived.put(KIND, image) as file:
            for start in range(0, size, MIB):
                piece = trio.from_thread.run(read, start, min(MIB, size - start))
                hasher.update(piece)
                file.write(piece)
            file.write(hasher.hexdigest().encode())

    def _find(self, image: Digest, size: int) -> BinaryIO | None:
        """The cached file, or None if it is missing or damaged."""
        file = self._derived.find(KIND, image)
        if file is None:
            return None
        try:
            if _is_good(file, size):
                return file
        except OSError as error:
            log.warning("cannot read %s of %s in the cache: %s", KIND, image, error)
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        log.warning("%s of %s in the cache is damaged, creating it again", KIND, image)
        file.close()
        return None


def _is_good(file: BinaryIO, size: int) -> bool:
    """Whether a file has this many bytes of data, and matches its checksum."""
    hasher, left = hashlib.sha256(), size
    while left:
        piece = file.read(min(MIB, left))
        if not piece:
            return False
        hasher.update(piece)
        left -= len(piece)
        check_cancelled()
    return file.read() == hasher.hexdigest().encode()
