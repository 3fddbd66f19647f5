"""Spans: which bytes of a blob decode to which part of the uncompressed layer.

A span is decoded and verified by itself, so that a file is read without the rest of the layer.
Spans have positions in the uncompressed content. For an ordinary layer these are positions in the
tar. A lazy format may use others (for example its files one after the other), if the extents of the
layer's entries use the same positions.

Rules:

- Pure values.
- Spans are ordered by position, and do not overlap.
- Each span has a checksum, by an algorithm without known collisions.
"""

from __future__ import annotations

import hashlib
import hmac
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ocifs.errors import Malformed
from ocifs.layers.spans.windows import StoredWindow


@dataclass(frozen=True, slots=True)
class Checksum:
    """An algorithm of hashlib, and at least the first 16 bytes of the digest.

    Of the uncompressed bytes, or of the bytes of the blob if `packed`.
    """

    algorithm: str
    value: bytes
    packed: bool = False

    @classmethod
    def of(cls, data: bytes) -> Checksum:
        """Return the checksum of verified bytes.

        128 bits of SHA-256 are enough here: an attacker would need a second preimage.
        """
        return cls("sha256", hashlib.sha256(data).digest()[:TAKEN])

    def matches(self, data: bytes) -> bool:
        """Whether the checksum is that of the data."""
        value = hashlib.new(self.algorithm, data).digest()
        # A short value could be met by chance, and an empty one would match everything.
        return len(self.value) >= TAKEN and hmac.compare_digest(
            value[: len(self.value)], self.value
        )


TAKEN = 16
"""The minimum length of a checksum, in bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The state to enter a deflate stream (RFC 1951) in the middle.

    `bit`: the number of low bits of the span's first byte that belong to the preceding span (0 to
    7). `data`: up to 32 KiB of preceding output, compressed with zlib, or where it is on disk.
    """

    bit: int
    data: bytes | StoredWindow

    def read(self) -> bytes:
        """Return `data`. Blocks on disk if it is stored; raises IntegrityError."""
        return self.data if isinstance(self.data, bytes) else self.data.read()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Window):
            return NotImplemented
        return self.bit == other.bit and self.read() == other.read()

    def __hash__(self) -> int:
        return hash((self.bit, self.read()))


@dataclass(frozen=True, slots=True)
class Span:
    """Positions [position, position+length), decoded from the blob's bytes [start, stop).

    `window`: None if a gzip member or a zstd frame starts at `start`, or if nothing is compressed.
    `skip`: the number of decoded bytes before the span. Bytes behind the span are also ignored.
    """

    position: int
    length: int
    start: int
    stop: int
    checksum: Checksum
    window: Window | None = None
    skip: int = 0


FROM_TAR = "plain tar"
"""In place of a compression: the spans are ranges of the uncompressed tar in the cache."""


class SpanMap:
    """The spans of a layer in order.

    `compression`: gzip, zstd, none, or FROM_TAR. `packed`: checksums are of the blob's bytes.

    Columns instead of objects: a span takes 57 bytes and its window, and about 100 more if `skip`
    is not 0. All checksums have one algorithm and length.
    """

    __slots__ = (
        "_checksums",
        "_lengths",
        "_positions",
        "_skips",
        "_starts",
        "_stops",
        "_windows",
        "algorithm",
        "compression",
        "packed",
        "width",
    )

    def __init__(
        self,
        compression: str,
        spans: Iterable[Span] = (),
        *,
        algorithm: str = "sha256",
        width: int = TAKEN,
        packed: bool = False,
    ) -> None:
        """Raises Malformed if spans are out of order, are empty or overlap."""
        self.compression = compression
        self.algorithm = algorithm
        self.width = width
        self.packed = packed
        self._positions, self._lengths, self._starts, self._stops = (
            array("Q"),
            array("Q"),
            array("Q"),
            array("Q"),
        )
        self._checksums = bytearray()
        # Sparse: most spans of most formats have neither a window nor a skip.
        self._windows: dict[int, Window] = {}
        self._skips: dict[int, int] = {}
        for span in spans:
            self.add(span)

    def add(self, span: Span) -> None:
        """Add the next span. Raises Malformed if it is empty or not behind the last one."""
        end = self._positions[-1] + self._lengths[-1] if self._positions else 0
        if span.position < end or span.length <= 0 or not 0 <= span.start < span.stop:
            raise Malformed("the layer's spans are out of order")
        if span.checksum.algorithm != self.algorithm or len(span.checksum.value) != self.width:
            raise Malformed("the layer's spans have checksums of different kinds")
        if span.window is not None:
            self._windows[len(self._positions)] = span.window
        if span.skip:
            self._skips[len(self._positions)] = span.skip
        self._positions.append(span.position)
        self._lengths.append(span.length)
        self._starts.append(span.start)
        self._stops.append(span.stop)
        self._checksums += span.checksum.value

    def __len__(self) -> int:
        return len(self._positions)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SpanMap):
            return NotImplemented
        return self.compression == other.compression and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __getitem__(self, number: int) -> Span:
        """Return the span of a number, from 0."""
        if not 0 <= number < len(self._positions):
            raise IndexError(number)
        value = bytes(self._checksums[number * self.width : (number + 1) * self.width])
        return Span(
            self._positions[number],
            self._lengths[number],
            self._starts[number],
            self._stops[number],
            Checksum(self.algorithm, value, self.packed),
            self._windows.get(number),
            self._skips.get(number, 0),
        )

    def location(self, number: int) -> tuple[int, int, int]:
        """Return the start of a span in the blob, its position and its length."""
        return self._starts[number], self._positions[number], self._lengths[number]

    def __iter__(self) -> Iterator[Span]:
        return map(self.__getitem__, range(len(self)))

    def numbers(self, start: int, stop: int) -> range:
        """Return the numbers of the spans that cover positions [start, stop).

        Raises Malformed if a position is not covered.
        """
        if stop <= start:
            return range(0)
        # The last span that starts at or before `start`, then the following ones without gaps.
        first = last = bisect_right(self._positions, start) - 1
        end = start if first >= 0 else stop
        while end < stop:
            if (
                last >= len(self._positions)
                or not self._positions[last] <= end < self._positions[last] + self._lengths[last]
            ):
                break
            end = self._positions[last] + self._lengths[last]
            last += 1
        if end < stop or first < 0:
            raise Malformed("a file of the layer is outside the spans of its index")
        return range(first, last)
