"""Checkpoints in compressed layers: positions at which decompression can start.

`CheckpointBuilder` records them while a layer is decompressed as a whole. `decode` decompresses one
span from its checkpoint. Tables of contents of lazy layers contain spans as well, for the same
`decode`.

A checkpoint in gzip costs up to 32 KiB of preceding output, compressed. Checkpoints are therefore
at least 1 MiB apart, and further if they are larger: together at most 1/64 of the output.

Rules:

- Blocking, for a worker thread.
- The output is bounded by the span's length, for any input.
- Output without its checksum is never returned.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import cast

from isal import isal_zlib

from ocifs.errors import IntegrityError, Malformed
from ocifs.layers import zstd
from ocifs.layers.spans.deflate import WINDOW
from ocifs.layers.spans.span import FROM_TAR, TAKEN, Checksum, Span, SpanMap, Window
from ocifs.layers.spans.windows import StoredWindow
from ocifs.layers.streams import StreamInput
from ocifs.settings import KIB, MIB

SPACING = 1 * MIB
_FREE_SPACING = 256 * KIB  # of checkpoints without a window, which cost only a checksum
_COST = 64
LONGEST = 8 * MIB
"""The maximum length of a span. A layer with a longer one is read from its uncompressed tar."""

_RAW, _GZIP = -15, 31  # windowBits (zlib.h)
_ISAL_ERROR = cast(type[Exception], isal_zlib.error)


class CheckpointBuilder:
    """Divides a layer into spans while it is decompressed.

    Call `begin`, then `add` with each piece of output and `offer` with each possible checkpoint
    between the pieces, then `end`. They return True if a span ends with the last piece, so that
    the caller can finish its checksum (`indexing/digests.py`).
    """

    def __init__(self, store: Callable[[bytes], bytes | StoredWindow] = bytes) -> None:
        """`store` is called with each window, and returns it or its location on disk."""
        self._store = store
        self._compression = FROM_TAR
        # The fields of each span except the checksum: position, length, start, stop, window.
        self._cuts: list[tuple[int, int, int, int, Window | None]] = []
        self._tail = b""  # the last 32 KiB of output
        # The output so far, and the position and start of the current span.
        self._output = self._began = self._start = 0
        self._window: Window | None = None
        self._spacing = _FREE_SPACING

    def begin(self, compression: str) -> None:
        """Start a layer of this compression."""
        self._compression = compression if compression in ("none", "gzip", "zstd") else FROM_TAR

    @property
    def bytes_to_next(self) -> int:
        """The number of output bytes before the next checkpoint would be used."""
        return max(0, self._began + self._spacing - self._output)

    def add(self, piece: bytes) -> bool:
        """Add the next output."""
        self._output += len(piece)
        # Only checkpoints in gzip need the preceding output.
        if self._compression == "gzip":
            self._tail = piece[-WINDOW:] if len(piece) >= WINDOW else (self._tail + piece)[-WINDOW:]
        if self._compression == FROM_TAR:
            if self._output - self._began >= _FREE_SPACING:
                self._close(self._output)
                self._start = self._output
                return True
        # No checkpoint was offered for too long, for example in one large zstd frame.
        elif self._output - self._began > LONGEST:
            self._give_up()
        return False

    def offer(self, offset: int, bits: int | None = None) -> bool:
        """Record that decompression could start here, at byte `offset` of the blob.

        `bits`: None if a member or a frame starts here, else a block of deflate starts this number
        of bits before the byte.
        """
        if self._compression == FROM_TAR:
            return False
        # A span that starts within a member ends with it: the bit at which the next member starts
        # in the raw stream is unknown.
        leaves_member = bits is None and self._window is not None
        if self._output and self.bytes_to_next and not leaves_member:
            return False
        ends = self._close(offset)
        if bits is None:
            self._start, self._window = offset, None
            self._spacing = SPACING if self._compression == "gzip" else _FREE_SPACING
            return ends
        # A quarter of the time of zlib's level 1, at the same size.
        deflated = isal_zlib.compress(self._tail, 3)
        self._start, self._window = offset - -(-bits // 8), Window(-bits % 8, self._store(deflated))
        self._spacing = max(SPACING, _COST * len(deflated))
        return ends

    def end(self, offset: int) -> bool:
        """Record that the blob ends at byte `offset`."""
        return self._close(self._output if self._compression == FROM_TAR else offset)

    def spans(self, checksums: bytes | bytearray) -> SpanMap:
        """Return the spans after `end`, given their checksums of TAKEN bytes each."""
        spans = SpanMap(self._compression)
        for number, (position, length, start, stop, window) in enumerate(self._cuts):
            checksum = Checksum("sha256", bytes(checksums[number * TAKEN : (number + 1) * TAKEN]))
            spans.add(Span(position, length, start, stop, checksum, window))
        return spans

    def _close(self, stop: int) -> bool:
        ends = self._output > self._began
        if ends:
            self._cuts.append(
                (self._began, self._output - self._began, self._start, stop, self._window)
            )
        self._began = self._output
        return ends

    def _give_up(self) -> None:
        """Convert all spans to ranges of the tar: the layer has no checkpoints for too long."""
        self._compression = FROM_TAR
        self._cuts = [
            (position, length, position, position + length, None)
            for position, length, *_ in self._cuts
        ]
        self._start, self._window, self._spacing = self._began, None, _FREE_SPACING


def _empty_blocks() -> tuple[tuple[int, int], ...]:
    """Return, for each bit of a byte, empty deflate blocks that end before it.

    They are numbers and their lengths in bits.

    Python's zlib cannot start at a bit, so the data is preceded by blocks without content. They
    must not move the data within its byte, since a stored block starts at a byte (RFC 1951, 3.2.4).
    A block of fixed codes has 10 bits. A block of dynamic codes, with codes for 255, the end and
    one distance, has 91.
    """
    fixed = (0b10, 10)
    dynamic, size = 0, 0
    # Lengths of the codes for code lengths, in their order: 18 (zeros) and 1 have one bit.
    lengths = [0, 0, 1, *[0] * 14, 1]
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
    blocks = []
    for bit in range(8):
        number, length = (dynamic, size) if bit % 2 else (0, 0)
        while length % 8 != bit:
            number |= fixed[0] << length
            length += fixed[1]
        blocks.append((number, length))
    return tuple(blocks)


_EMPTY_BLOCKS = _empty_blocks()


def _lead_in(bit: int, byte: int) -> bytes:
    """Return empty blocks that replace the low bits of a span's first byte."""
    number, length = _EMPTY_BLOCKS[bit]
    number |= byte >> bit << length
    return number.to_bytes(length // 8 + 1, "little")


def decode(compression: str, span: Span, data: bytes) -> bytes:
    """Decompress a span from its bytes of the blob.

    Raises IntegrityError if its checksum does not match.
    """
    if span.checksum.packed and not span.checksum.matches(data):
        raise IntegrityError(
            "a part of a layer does not match the checksum in its table of contents"
        )
    try:
        output = b"".join(_decoded(compression, span, data))[span.skip :]
    except (zlib.error, _ISAL_ERROR, zstd.ZstdError, EOFError, MemoryError) as error:
        raise IntegrityError(f"a part of a layer has invalid {compression} data: {error}") from None
    if len(output) != span.length or not (span.checksum.packed or span.checksum.matches(output)):
        raise IntegrityError("a part of a layer does not match its checksum")
    return output


def _decoded(compression: str, span: Span, data: bytes) -> Iterator[bytes]:
    if compression in ("none", FROM_TAR):
        yield data[: span.skip + span.length]
    elif compression == "zstd":
        yield zstd.first_of(data, span.skip + span.length, 128 * MIB)
    elif compression == "gzip":
        yield from _inflated(span, data)
    else:
        raise Malformed(f"unknown compression of a span: {compression}")


def _inflated(span: Span, data: bytes) -> Iterator[bytes]:
    remaining = span.skip + span.length
    if span.window is None:
        decoder = isal_zlib.decompressobj(_GZIP)
    else:
        decoder = isal_zlib.decompressobj(
            _RAW, zdict=zlib.decompressobj().decompress(span.window.read(), WINDOW)
        )
        # The first bits of the span's first byte belong to the preceding span.
        data = _lead_in(span.window.bit, data[0]) + data[1:]
    source, data = StreamInput(data), b""
    source.begin()
    while remaining:
        if decoder.eof:
            source.give_back(decoder.unused_data)
            # A span with a window is a raw stream, and ends with its member.
            if span.window is not None or not source.head(1):
                return
            decoder, data = isal_zlib.decompressobj(_GZIP), b""
            source.begin()
        data = data or source.take()
        if not data:
            return
        piece = decoder.decompress(data, remaining)
        data = decoder.unconsumed_tail
        if piece:
            remaining -= len(piece)
            yield piece
