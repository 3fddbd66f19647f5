"""Recognizes sequential reads in layers, within a file and from one file to the next.

Only the event loop calls this.

Rules:

- A read continues a sequence if it starts at most `_GAP` bytes behind its end: between the contents
  of two files of a tar are padding and headers. For the last sequence the gap may also be 1/64 of
  its length, for the headers of many links and directories.
- The number of sequences in memory is bounded.
"""

from __future__ import annotations

from cachetools import LRUCache

from ocifs.oci.digest import Digest
from ocifs.settings import KIB

_GAP = 4 * KIB
_GAP_SHARE = 64
_SEQUENCES = 256


class SequentialReads:
    """The sequences of reads in all layers."""

    def __init__(self) -> None:
        # The last read: its blob, its end, and the length of its sequence.
        self._last: tuple[Digest | None, int, int] = (None, 0, 0)
        # The end and length of other sequences, by blob and by their end in units of _GAP.
        self._others: LRUCache[tuple[Digest, int], tuple[int, int]] = LRUCache(_SEQUENCES)

    def length_before(self, digest: Digest, start: int) -> int:
        """Return the length of the sequence that a read at `start` would continue, or 0."""
        last, end, length = self._last
        if last is digest and 0 <= start - end < max(_GAP, length // _GAP_SHARE):
            return length
        # An end less than _GAP before `start` is in the same unit, or in the one before.
        for unit in (start // _GAP, start // _GAP - 1):
            end, length = self._others.get((digest, unit), (-1, 0))
            if end >= 0 and 0 <= start - end < _GAP:
                return length
        return 0

    def record(self, digest: Digest, start: int, size: int) -> int:
        """Record a read; return the length of its sequence, including the read."""
        last, end, length = self._last
        if last is digest and 0 <= start - end < max(_GAP, length // _GAP_SHARE):
            self._last = digest, start + size, length + size
            return length + size
        if last is not None:
            self._others[last, end // _GAP] = end, length
        total = size
        for unit in (start // _GAP, start // _GAP - 1):
            end, length = self._others.get((digest, unit), (-1, 0))
            if end >= 0 and 0 <= start - end < _GAP:
                del self._others[digest, unit]
                total += length
                break
        self._last = digest, start + size, total
        return total
