"""How many bytes of each transfer are in memory on their way to the disk.

Used in the event loop. One for the cache directory of a process, since memory is shared by all
hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ocifs.settings import KIB, MIB

_RUN = 2 * MIB  # what goes to a worker thread at a time, at the most
_LEAST = 128 * KIB
_RUNS = 4 * MIB  # what is gathered in all transfers together, as long as each may have a block


class WriteBatches:
    """How much each of the transfers of a process gathers at a time, so that all together take
    little memory.
    """

    def __init__(self) -> None:
        self._transfers = 0

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """A transfer is under way for the length of the block."""
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    @property
    def size(self) -> int:
        """Bytes of one run."""
        return max(_LEAST, min(_RUN, _RUNS // max(1, self._transfers)))
