"""The size of the batches in which transfers write to the disk.

Used in the event loop. There is one `WriteBatches` for each cache directory of a process, since the
memory is shared by the transfers of all hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ocifs.settings import KIB, MIB

_MOST = 2 * MIB  # goes to a worker thread in one batch
_LEAST = 128 * KIB
_ALL = 4 * MIB  # gathered by all transfers together, if that allows each its least


class WriteBatches:
    """Divides the memory for unwritten bytes among the transfers of a process."""

    def __init__(self) -> None:
        self._transfers = 0

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """Count a transfer while the block lasts."""
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    @property
    def size(self) -> int:
        """Bytes of one batch."""
        return max(_LEAST, min(_MOST, _ALL // max(1, self._transfers)))
