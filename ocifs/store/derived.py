"""What was made from blobs, kept beside them: `derived/<kind>/<algorithm>/<hex>` in the cache's
directory.

Rules that hold here:

- A thing appears by rename after fsync, so that no reader ever sees a part of one.
- Two that are made at once are equal. The later replaces the earlier, and anything else that is in
  its place.
- What cannot be opened is missing, with a warning: it can be made again.
- A path is made from a kind, which is a word of ours, and a Digest.
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


class _Growing(io.FileIO):
    """A file whose growth is told, and for which room is made where the disk is full."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        super().__init__(descriptor, "wb")
        self._disk = disk

    def write(self, data: ReadableBuffer, /) -> int:
        count = self._disk.with_room(lambda: os.write(self.fileno(), data))
        self._disk.on_growth(count)
        return count


class DerivedFiles:
    """A DerivedCache in a cache directory. Everything here blocks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._root = disk.root / "derived"

    def path(self, kind: str, key: Digest) -> Path:
        """Where a thing is, when it is here."""
        return self._root / kind / key.algorithm / key.encoded

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        """The thing, open for reading, or None. What cannot be opened is as good as missing."""
        path = self.path(kind, key)
        try:
            descriptor = open_regular(path, os.O_RDONLY)
            lock_shared(descriptor)
            return os.fdopen(descriptor, "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning(
                "cannot open %s in the cache, it is made again: %s", path, error.strerror or error
            )
            return None

    @contextmanager
    def put(self, kind: str, key: Digest) -> Iterator[BinaryIO]:
        """A file to write the thing to; kept whole when the block ends, dropped when it raises.

        Raises CacheFull.
        """
        path = self.path(kind, key)
        try:
            make_directory(path.parent)
            number, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
            try:
                with io.BufferedWriter(_Growing(self._disk, number), MIB) as file:
                    lock_shared(number)
                    yield file
                    file.flush()
                    os.fsync(number)
                    move_into_place(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise disk_error(error, path) from None
