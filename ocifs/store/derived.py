"""Derived data, stored beside the blobs as `derived/<kind>/<algorithm>/<hex>`.

Everything here blocks, and is called from worker threads.

- A file appears by rename after fsync, so no reader ever sees an incomplete one.
- Two writers of one file write equal content. The later one replaces the earlier.
- A file that cannot be opened counts as missing, with a warning: it can be derived again.
- A path is made from a kind, which is a constant of the program, and a Digest.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.disk import (
    TEMPORARY,
    Disk,
    disk_error,
    lock_shared,
    make_directory,
    move_into_place,
    open_regular,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


log = logging.getLogger("ocifs.store")


class _GrowingFile(io.FileIO):
    """A file that reports its growth, and frees space when the disk is full."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        super().__init__(descriptor, "wb")
        self._disk = disk

    def write(self, data: ReadableBuffer, /) -> int:
        # Below the buffer, so that the same bytes can be written again after space was freed.
        count = self._disk.with_room(lambda: os.write(self.fileno(), data))
        self._disk.grew(count)
        return count


class DerivedFiles:
    """The DerivedCache of a cache directory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._root = disk.root / "derived"

    def path(self, kind: str, key: Digest) -> Path:
        """The path of a derived file."""
        return self._root / kind / key.algorithm / key.encoded

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        """The file, open for reading, or None if there is none that can be opened."""
        path = self.path(kind, key)
        try:
            descriptor = open_regular(path, os.O_RDONLY)
            lock_shared(descriptor)
            return os.fdopen(descriptor, "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning(
                "cannot open %s in the cache, deriving it again: %s", path, error.strerror or error
            )
            return None

    @contextmanager
    def put(self, kind: str, key: Digest) -> Iterator[BinaryIO]:
        """A file to write to. It appears when the block ends, and is removed if the block raises.

        Raises CacheFull, CacheFailed.
        """
        path = self.path(kind, key)
        try:
            make_directory(path.parent)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
            try:
                with io.BufferedWriter(_GrowingFile(self._disk, descriptor), MIB) as file:
                    # A temporary file without a lock is taken for a leftover, and removed.
                    lock_shared(descriptor)
                    yield file
                    file.flush()
                    os.fsync(descriptor)
                    move_into_place(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise disk_error(error, path) from None
