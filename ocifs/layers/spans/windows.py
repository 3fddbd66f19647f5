"""Windows of checkpoints in a file of the derived cache.

A pass over a large gzip layer writes its windows to a file instead of holding them in memory
(`indexing/window_log.py`). Worker threads that decode a span read the window of its checkpoint.

Rules:

- A file that is open stays readable when it is evicted.
- A window is not verified by itself: a span decoded with a damaged one fails its checksum.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ocifs.content import DerivedCache
from ocifs.errors import IntegrityError
from ocifs.oci.digest import Digest

WINDOWS_KIND = "layer-windows.1"


class WindowFile:
    """An open file of windows. It is closed with the last reference to it."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is duplicated. Raises OSError."""
        # `__del__` is also called if the duplication fails.
        self._descriptor = -1
        self._descriptor = os.dup(descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Read a window. Blocks on disk. Raises IntegrityError if that is not possible."""
        try:
            data = os.pread(self._descriptor, length, start)
        except OSError as error:
            raise IntegrityError(
                f"cannot read the checkpoints of a layer in the cache: {error.strerror}"
            ) from None
        if len(data) != length:
            raise IntegrityError("the checkpoints of a layer in the cache are truncated")
        return data


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """Where a window is in a file."""

    file: WindowFile
    start: int
    length: int

    def read(self) -> bytes:
        """Read the window. Raises IntegrityError."""
        return self.file.read(self.start, self.length)


def open_windows(derived: DerivedCache, layer: Digest) -> WindowFile | None:
    """Open the windows of a layer; None if they are missing."""
    file = derived.find(WINDOWS_KIND, layer)
    if file is None:
        return None
    with file:
        return WindowFile(file.fileno())
