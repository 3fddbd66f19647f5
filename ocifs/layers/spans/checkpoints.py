"""Entering a compressed layer in the middle: where that can be done is noted while the whole is
decoded, and done later.

A place costs up to 32 KiB of what comes before it, deflated, so places lie 1 MiB apart, and further
where what they cost is more: never more than 1/64 of the plain bytes. Tables of contents that come
with a layer give places too, and are decoded by the same `decode`.

Rules that hold here: blocking, for a worker thread; what is decoded is bounded by the span's
length, whatever its bytes ask for; nothing is given out that does not have its checksum.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import cast

from isal import isal_zlib

from ocifs.errors import IntegrityError, Malformed
from ocifs.layers import zstd
from ocifs.layers.spans.deflate import WINDOW
from ocifs.layers.spans.span import FROM_TAR, TAKEN, Checksum, Span, SpanMap, Window
from ocifs.layers.streams import StreamInput
from ocifs.settings import KIB, MIB

SPACING = 1 * MIB
_SPACING_UNCOSTLY = 256 * KIB  # where a place costs nothing but its checksum
_COST = 64
LONGEST = 8 * MIB
"""A span is decoded as a whole; a layer that would have longer ones is not entered in the middle, but read from its plain tar."""

_RAW, _GZIP = -15, 31  # windowBits (zlib.h)
_ISAL_ERROR = cast(type[Exception], isal_zlib.error)


class CheckpointBuilder:
    """Cuts a layer into spans while it is decoded: `begin`, then `add` every piece and `offer` the
    places between them, then `end`.

    These are True where a span ends with the last piece: whoever takes the checksums does that
    elsewhere (sums.py).
    """

    def __init__(self) -> None:
        self._compression = FROM_TAR
        self._cuts: list[
            tuple[int, int, int, int, Window | None]
        ] = []  # of each span what comes before the checksum, and its window
        self._tail = b""  # the last 32 KiB
        self._plain = self._began = self._start = 0
        self._window: Window | None = None
        self._spacing = _SPACING_UNCOSTLY

    def begin(self, compression: str) -> None:
        self._compression = compression if compression in ("none", "gzip", "zstd") else FROM_TAR

    @property
    def wanted(self) -> int:
        """How many plain bytes are to come before the next place is of use."""
        return max(0, self._began + self._spacing - self._plain)

    def add(self, piece: bytes) -> bool:
        """The next plain bytes."""
        self._plain += len(piece)
        if self._compression == "gzip":
            self._tail = piece[-WINDOW:] if len(piece) >= WINDOW else (self._tail + piece)[-WINDOW:]
        if self._compression == FROM_TAR:
            if self._plain - self._began >= _SPACING_UNCOSTLY:
                self._close(self._plain)
                self._start = self._plain
                return True
        elif self._plain - self._began > LONGEST:
            self._give_up()
        return False

    def offer(self, place: int, bits: int | None = None) -> bool:
        """Decoding could begin here, with byte `place` of the blob.

        `bits` of None: a member or a frame begins. Else the next block of deflate does, so many
        bits before that byte.
        """
        if self._compression == FROM_TAR:
            return False
        # What is entered in the middle of a member ends with it: behind it begins a byte, and which
        # bit that is nobody would know.
        leaves = bits is None and self._window is not None
        if self._plain and self.wanted and not leaves:
            return False
        ends = self._close(place)
        if bits is None:
            self._start, self._window = place, None
            self._spacing = SPACING if self._compression == "gzip" else _SPACING_UNCOSTLY
            return ends
        deflated = isal_zlib.compress(
            self._tail, 3
        )  # in a quarter of the time of zlib's level 1, and no larger
        self._start, self._window = place - -(-bits // 8), Window(-bits % 8, deflated)
        self._spacing = max(SPACING, _COST * len(deflated))
        return ends

    def end(self, place: int) -> bool:
        """The blob ends with byte `place`."""
        return self._close(self._plain if self._compression == FROM_TAR else place)

    def spans(self, sums: bytes | bytearray) -> SpanMap:
        """What the layer was cut into, at the end, with the checksums of all spans, TAKEN bytes
        each.
        """
        spans = SpanMap(self._compression)
        for place, (plain, length, start, stop, window) in enumerate(self._cuts):
            checksum = Checksum("sha256", bytes(sums[place * TAKEN : (place + 1) * TAKEN]))
            spans.add(Span(plain, length, start, stop, checksum, window))
        return spans

    def _close(self, stop: int) -> bool:
        ends = self._plain > self._began
        if ends:
            self._cuts.append(
                (self._began, self._plain - self._began, self._start, stop, self._window)
            )
        self._began = self._plain
        return ends

    def _give_up(self) -> None:
        """It cannot be entered in the middle: what was cut so far is cut from its plain tar."""
        self._compression = FROM_TAR
        self._cuts = [
            (plain, length, plain, plain + length, None) for plain, length, *_ in self._cuts
        ]
        self._start, self._window, self._spacing = self._began, None, _SPACING_UNCOSTLY


def _empty_blocks() -> tuple[tuple[int, int], ...]:
    """For each bit of a byte: blocks of deflate without content that end before it, as a number and
    how many bits it has.

    A stored block begins at the next byte, so what follows must keep its place in the byte (RFC
    1951, 3.2.4); Python's zlib cannot be told a bit to begin at. A block of fixed codes has ten
    bits; one of dynamic codes, with codes for 255, the end and one distance, 91.
    """
    fixed = (0b10, 10)
    dynamic, size = 0, 0
    lengths = [
        0,
        0,
        1,
        *[0] * 14,
        1,
    ]  # of the codes for code lengths, in their order: 18 (zeros) and 1 have one bit
    fields = [
        (0, 1),
        (2, 2),
        (0, 5),
        (0, 5),
        (len(lengths) - 4, 4),
        *((length, 3) for length in lengths),
    ]
    zeros = [(1, 1), (138 - 11, 7), (1, 1), (117 - 11, 7)]
    for value, bits in (*fields, *zeros, (0, 1), (0, 1), (0, 1), (1, 1)):
        dynamic |= value << size
        size += bits
    found = []
    for bit in range(8):
        number, length = (dynamic, size) if bit % 2 else (0, 0)
        while length % 8 != bit:
            number |= fixed[0] << length
            length += fixed[1]
        found.append((number, length))
    return tuple(found)


_EMPTY_BLOCKS = _empty_blocks()


def _lead_in(bit: int, byte: int) -> bytes:
    """Bytes for a decoder to begin with, whose last is `byte` with its low bits replaced."""
    number, length = _EMPTY_BLOCKS[bit]
    number |= byte >> bit << length
    return number.to_bytes(length // 8 + 1, "little")


def decode(compression: str, span: Span, data: bytes) -> bytes:
    """The plain bytes of a span, from its bytes of the blob.

    Raises IntegrityError where they are not those that they were.
    """
    if span.checksum.packed and not span.checksum.fits(data):
        raise IntegrityError("a part of a layer has other content than its table of contents says")
    try:
        plain = b"".join(_decoded(compression, span, data))[span.skip :]
    except (zlib.error, _ISAL_ERROR, zstd.ZstdError, EOFError, MemoryError) as error:
        raise IntegrityError(f"a part of a layer has invalid {compression} data: {error}") from None
    if len(plain) != span.length or not (span.checksum.packed or span.checksum.fits(plain)):
        raise IntegrityError("a part of a layer has other content than it had")
    return plain


def _decoded(compression: str, span: Span, data: bytes) -> Iterator[bytes]:
    if compression in ("none", FROM_TAR):
        yield data[: span.skip + span.length]
    elif compression == "zstd":
        yield zstd.first_of(data, span.skip + span.length, 128 * MIB)
    elif compression == "gzip":
        yield from _inflated(span, data)
    else:
        raise Malformed(f"spans of {compression} are not known")


def _inflated(span: Span, data: bytes) -> Iterator[bytes]:
    left = span.skip + span.length
    if span.window is None:
        decoder = isal_zlib.decompressobj(_GZIP)
    else:
        decoder = isal_zlib.decompressobj(
            _RAW, zdict=zlib.decompressobj().decompress(span.window.deflated, WINDOW)
        )
        data = _lead_in(span.window.bit, data[0]) + data[1:]
    source, data = StreamInput(data), b""
    source.begin()
    while left:
        if decoder.eof:
            source.give_back(decoder.unused_data)
            if span.window is not None or not source.head(1):
                return
            decoder, data = isal_zlib.decompressobj(_GZIP), b""
            source.begin()
        data = data or source.take()
        if not data:
            return
        piece = decoder.decompress(data, left)
        data = decoder.unconsumed_tail
        if piece:
            left -= len(piece)
            yield piece
