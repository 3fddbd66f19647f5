"""The windows of a pass: in memory for a small layer, in a file for a large one.

The windows of a gzip layer take up to 1/64 of its uncompressed size. The first ones stay in memory
(`IN_MEMORY`), the others are written to the derived cache, so that the memory of a mount does not
grow with its layers.

The decompressing thread of a pass calls this. If the disk fails, later windows stay in memory.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from ocifs.content import DerivedCache
from ocifs.layers.indexing.spool import Spool
from ocifs.layers.spans.windows import WINDOWS_KIND, StoredWindow, WindowFile
from ocifs.oci.digest import Digest
from ocifs.settings import KIB

IN_MEMORY = 256 * KIB


class WindowLog:
    """Stores the windows of one layer, in their order."""

    def __init__(self, derived: DerivedCache, layer: Digest) -> None:
        self.spool = Spool(derived, WINDOWS_KIND, layer)
        self._file: WindowFile | None = None
        self._size = 0  # in memory, then in the file
        self._hash = hashlib.sha256()

    def store(self, deflated: bytes) -> bytes | StoredWindow:
        """Store a window. Return it, or its location in the file."""
        if self._file is None and self._size < IN_MEMORY:
            self._size += len(deflated)
            return deflated
        # Each is flushed: it must be readable from the file even if a later write fails.
        if not self.spool.write(deflated, flush=True):
            return deflated
        if self._file is None:
            with suppress(OSError):
                self._open()
            if self._file is None:
                self.spool.failed = True
                return deflated
        self._hash.update(deflated)
        start, self._size = self._size, self._size + len(deflated)
        return StoredWindow(self._file, start, len(deflated))

    def keep(self) -> str:
        """Complete the file. Return its SHA-256 in hexadecimal; empty if there is no file."""
        if self._file is None or not self.spool.keep():
            return ""
        return self._hash.hexdigest()

    def _open(self) -> None:
        assert self.spool.file is not None
        self._file = WindowFile(self.spool.file.fileno())
        self._size = 0
