"""What was made from blobs, kept beside them: `derived/<kind>/<algorithm>/<hex>` in the cache's directory.

Rules that hold here: a thing appears by rename after fsync, so that nobody ever sees a part of one; two that are made at once are equal,
and the later takes the earlier's place; a path is made from a kind, which is a word of ours, and a Digest.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ocifs.oci.digest import Digest
from ocifs.store.disk import Disk, of_disk


class DiskShelf:
    """A Shelf in a cache directory. Everything here blocks."""

    def __init__(self, disk: Disk) -> None:
        self._root = disk.root / "derived"

    def path(self, kind: str, key: Digest) -> Path:
        """Where a thing is, when it is here."""
        return self._root / kind / key.algorithm / key.encoded

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        """The thing, open for reading, or None."""
        try:
            return self.path(kind, key).open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise of_disk(error, self.path(kind, key)) from None

    @contextmanager
    def put(self, kind: str, key: Digest) -> Iterator[BinaryIO]:
        """A file to write the thing to; kept whole when the block ends, dropped when it raises. Raises CacheFull."""
        path = self.path(kind, key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
            try:
                with os.fdopen(number, "wb") as file:
                    yield cast(BinaryIO, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise of_disk(error, path) from None
