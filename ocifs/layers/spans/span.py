"""Which bytes of a blob make which bytes of the plain layer: what lets a part of a layer be read
without the rest.

A layer's plain bytes are cut into spans, each of which can be decoded and verified by itself. Where
the plain bytes are those of a tar, their places are those in the tar. A lazy format may lay them
out as it likes (say, its files one after the other): all that counts is that the extents of the
layer's `Member`s use the same places.

Rules that hold here: pure values; spans do not overlap in the plain bytes and are in their order;
every span has a checksum of its plain bytes, by an algorithm that no stranger can aim at.
"""

from __future__ import annotations

import hashlib
import hmac
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ocifs.errors import Malformed


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest: an algorithm of hashlib's that is known to be strong, and the first bytes (16 at
    least) of its value.

    Of plain bytes, or where it is `packed` of the bytes that they are made from.
    """

    algorithm: str
    value: bytes
    packed: bool = False

    @classmethod
    def of(cls, data: bytes) -> Checksum:
        """What is taken of bytes that were verified by other means: 128 bits of SHA-256, enough
        against those who serve other bytes.
        """
        return cls("sha256", hashlib.sha256(data).digest()[:TAKEN])

    def fits(self, data: bytes) -> bool:
        """Whether these are the bytes."""
        value = hashlib.new(self.algorithm, data).digest()
        return len(self.value) >= TAKEN and hmac.compare_digest(
            value[: len(self.value)], self.value
        )


TAKEN = 16
"""How many bytes of a digest are kept at least."""


@dataclass(frozen=True, slots=True)
class Window:
    """How to go on in the middle of a deflate stream (RFC 1951): at which bit, and what copies may
    refer to.

    `bit`: how many low bits of the span's first byte belong to what comes before it (0 to 7).
    `deflated`: up to 32 KiB of plain bytes that come before it, as zlib.compress makes them.
    """

    bit: int
    deflated: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Plain bytes [plain, plain+length), made from the blob's bytes [start, stop).

    `window` of None: decoding begins afresh at `start`, with a gzip member or a zstd frame, or
    there is nothing to decode. What the blob's bytes give first is left out, `skip` bytes of it,
    and so is what they give beyond `length`.
    """

    plain: int
    length: int
    start: int
    stop: int
    checksum: Checksum
    window: Window | None = None
    skip: int = 0


FROM_TAR = "plain tar"
"""In place of a compression: spans are cut from the plain tar that is kept of a layer, since its blob cannot be entered in the middle."""


class SpanMap:
    """The spans of a layer in order.

    `compression`: how each is decoded: gzip, zstd, none, or PLAIN_TAR.

    `packed`: checksums are of the blob's bytes [start, stop), and not of the plain ones. A million
    spans take 57 bytes each and their windows, and some 100 more where something is skipped; all
    have checksums of one algorithm and length.
    """

    __slots__ = (
        "_checksums",
        "_lengths",
        "_plains",
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
        """Raises Malformed where spans are out of order, empty or overlap."""
        self.compression = compression
        self.algorithm = algorithm
        self.width = width
        self.packed = packed
        self._plains, self._lengths, self._starts, self._stops = (
            array("Q"),
            array("Q"),
            array("Q"),
            array("Q"),
        )
        self._checksums = bytearray()
        self._windows: dict[int, Window] = {}
        self._skips: dict[int, int] = {}
        for span in spans:
            self.add(span)

    def add(self, span: Span) -> None:
        """Add the next span.

        Raises Malformed where it does not come after the last one, or is empty.
        """
        end = self._plains[-1] + self._lengths[-1] if self._plains else 0
        if span.plain < end or span.length <= 0 or not 0 <= span.start < span.stop:
            raise Malformed("the layer's spans are out of order")
        if span.checksum.algorithm != self.algorithm or len(span.checksum.value) != self.width:
            raise Malformed("the layer's spans have checksums of several kinds")
        if span.window is not None:
            self._windows[len(self._plains)] = span.window
        if span.skip:
            self._skips[len(self._plains)] = span.skip
        self._plains.append(span.plain)
        self._lengths.append(span.length)
        self._starts.append(span.start)
        self._stops.append(span.stop)
        self._checksums += span.checksum.value

    def __len__(self) -> int:
        return len(self._plains)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SpanMap):
            return NotImplemented
        return self.compression == other.compression and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __getitem__(self, number: int) -> Span:
        """The span of a number from 0 on."""
        if not 0 <= number < len(self._plains):
            raise IndexError(number)
        value = bytes(self._checksums[number * self.width : (number + 1) * self.width])
        return Span(
            self._plains[number],
            self._lengths[number],
            self._starts[number],
            self._stops[number],
            Checksum(self.algorithm, value, self.packed),
            self._windows.get(number),
            self._skips.get(number, 0),
        )

    def place(self, number: int) -> tuple[int, int, int]:
        """Of a span its first byte in the blob, its first plain byte and its length, without making
        the rest of it.
        """
        return self._starts[number], self._plains[number], self._lengths[number]

    def __iter__(self) -> Iterator[Span]:
        return map(self.__getitem__, range(len(self)))

    def numbers(self, start: int, stop: int) -> range:
        """The numbers of the spans that have some of the plain bytes [start, stop).

        Raises Malformed where these are not all covered.
        """
        if stop <= start:
            return range(0)
        first = last = bisect_right(self._plains, start) - 1
        end = start if first >= 0 else stop
        while end < stop:
            if (
                last >= len(self._plains)
                or not self._plains[last] <= end < self._plains[last] + self._lengths[last]
            ):
                break
            end = self._plains[last] + self._lengths[last]
            last += 1
        if end < stop or first < 0:
            raise Malformed("a file of the layer lies outside what its index covers")
        return range(first, last)
