"""The data file of an image: where the bytes at each of its addresses come from.

The content of all files of an image is one sequence of blocks of 4 KiB, the data device of its
EROFS image. A file starts at a block, and the rest of its last block is zeros. Files are in the
order of their layers and of their entries in them, so that reading ahead follows the layer.

A segment is a run of blocks of one file. A file without holes is one segment. The large holes of a
sparse file have no blocks, so it can have several segments.

A segment takes 10 bytes, so a million files take 10 MB.

Rules:

- Pure. Any thread may read a map that is complete.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ocifs.errors import LimitExceeded
from ocifs.layers.erofs.format import BLOCK, MOST_BLOCKS

TOO_MUCH_DATA = "the files of the image have more than 16 TiB, the limit of EROFS"


class DataPiece(NamedTuple):
    """Bytes of the data file: `length` bytes of an entry from `offset` on, at `address`.

    `layer` and `entry`: the numbers of the layer, and of the entry in its index.
    """

    address: int
    layer: int
    entry: int
    offset: int
    length: int


class DataMap:
    """Segments by address. They are added in order."""

    def __init__(self) -> None:
        # The first block of each segment, then the number of all blocks.
        self._starts = array("I", [0])
        self._entries = array("I")
        # Bytes of zeros at the end of each segment's last block.
        self._padding = array("H")
        # The first segment of each layer.
        self._layers = array("Q")
        # The offsets of segments that do not start at the beginning of their file.
        self._offsets: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def blocks(self) -> int:
        return self._starts[-1]

    @property
    def size(self) -> int:
        """The size of the data file, in bytes."""
        return self.blocks * BLOCK

    def add_layer(self) -> None:
        """Start the segments of the next layer."""
        self._layers.append(len(self))

    def add(self, entry: int, offset: int, length: int) -> int:
        """Add a segment of a file in the last layer; return its first block.

        Raises LimitExceeded.
        """
        start = self._starts[-1]
        count = -(-length // BLOCK)
        if start + count > MOST_BLOCKS:
            raise LimitExceeded(TOO_MUCH_DATA)
        if offset:
            self._offsets[len(self)] = offset
        self._starts.append(start + count)
        self._entries.append(entry)
        self._padding.append(count * BLOCK - length)
        return start

    def start(self, segment: int) -> int:
        """The first block of a segment."""
        return self._starts[segment]

    def pieces(self, address: int, length: int) -> Iterator[DataPiece]:
        """The pieces of a range of addresses, in order. Bytes between them are zeros."""
        stop = min(address + length, self.size)
        segment = bisect_right(self._starts, address // BLOCK) - 1
        while address < stop:
            first = self._starts[segment] * BLOCK
            end = self._starts[segment + 1] * BLOCK
            last = min(stop, end - self._padding[segment])
            if address < last:
                offset = self._offsets.get(segment, 0) + address - first
                layer = bisect_right(self._layers, segment) - 1
                yield DataPiece(address, layer, self._entries[segment], offset, last - address)
            address = end
            segment += 1

    def encode(self) -> tuple[list[int], list[bytes]]:
        """The lengths of the columns in bytes, and the columns."""
        segments, offsets = array("Q", self._offsets.keys()), array("Q", self._offsets.values())
        columns = [self._starts, self._entries, self._padding, self._layers, segments, offsets]
        parts = [_little(column).tobytes() for column in columns]
        return [len(part) for part in parts], parts

    @classmethod
    def decode(cls, lengths: Sequence[int], data: bytes) -> DataMap:
        """The map that `encode` returned."""
        result, columns, start = cls(), [], 0
        for code, length in zip("IIHQQQ", lengths, strict=True):
            column = array(code)
            column.frombytes(data[start : start + length])
            columns.append(_little(column))
            start += length
        result._starts, result._entries, result._padding, result._layers = columns[:4]
        result._offsets = dict(zip(*columns[4:], strict=True))
        return result


def _little(column: array[int]) -> array[int]:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column
