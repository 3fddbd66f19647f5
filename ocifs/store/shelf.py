"""What was made from blobs, kept beside them: `derived/<kind>/<algorithm>/<hex>` in the cache's directory.

Rules that hold here: a thing appears by rename after fsync, so that nobody ever sees a part of one; two that are made at once are equal,
and the later takes the earlier's place; a path is made from a kind, which is a word of ours, and a Digest.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.disk import TEMPORARY, Disk, hold, make_directory, of_disk

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Growing(io.FileIO):
    """A file whose growth is told, and for which room is made where the disk is full."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        super().__init__(descriptor, "wb")
        self._disk = disk

    def write(self, data: ReadableBuffer, /) -> int:
        count = self._disk.with_room(lambda: super(_Growing, self).write(data))
        self._disk.on_growth(count)
        return count


class DiskShelf:
    """A Shelf in a cache directory. Everything here blocks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._root = disk.root / "derived"

    def path(self, kind: str, key: Digest) -> Path:
        """Where a thing is, when it is here."""
        return self._root / kind / key.algorithm / key.encoded

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        """The thing, open for reading, or None."""
        try:
            file = self.path(kind, key).open("rb")
            hold(file.fileno())
            return file
        except FileNotFoundError:
            return None
        except OSError as error:
            raise of_disk(error, self.path(kind, key)) from None

    @contextmanager
    def put(self, kind: str, key: Digest) -> Iterator[BinaryIO]:
        """A file to write the thing to; kept whole when the block ends, dropped when it raises. Raises CacheFull."""
        path = self.path(kind, key)
        try:
            make_directory(path.parent)
            number, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
            try:
                with io.BufferedWriter(_Growing(self._disk, number), MIB) as file:
                    hold(number)
                    yield file
                    file.flush()
                    os.fsync(number)
                    os.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise of_disk(error, path) from None
