"""Decompresses a layer: gzip (many members), zstd (many frames), bzip2, xz or nothing.

The first bytes decide. If the first block is a tar header with a valid checksum, the layer is not
compressed: the name of its first entry may start like a compressed file.

Rules:

- Blocking, for a worker thread.
- Pieces of output have a bounded size, for any input.
- The size, the ratio, the number of streams and the decoder's memory are bounded.
- Data behind a complete stream that does not start another stream is padding.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

from isal import igzip_lib

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers import zstd
from ocifs.layers.indexing.output_limits import OutputLimits
from ocifs.layers.spans.checkpoints import CheckpointBuilder
from ocifs.layers.spans.deflate import BlockInflater, open_block_inflater
from ocifs.layers.streams import StreamInput
from ocifs.layers.tar.header import BLOCK, checksum_holds
from ocifs.settings import KIB, MIB, Limits

# Spans of an uncompressed layer: short, so that reading a small file costs little.
_STORED = 256 * KIB
# The maximum length of an output piece: the memory that a decompression bomb can use.
_OUTPUT = 1 * MIB
# The window that several passes may have at a time: enough for zstd up to level 19, and for xz up
# to level 6.
_SMALL_WINDOW = 8 * MIB

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_HEAD = max(len(magic) for magic, _ in _MAGIC)
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f (RFC 8878, 3.1.2)

# From the error messages of libzstd and liblzma for a stream that needs more memory than allowed.
_MEMORY_LIMIT = ("too much memory", "memory usage limit")
_DECODER_ERRORS = (
    cast(type[Exception], igzip_lib.error),  # incomplete stubs
    OSError,
    EOFError,
    lzma.LZMAError,
    zstd.ZstdError,
    ValueError,
)


class _StreamDecoder(Protocol):
    """The common interface of the decompressors of the standard library and of isal."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


def sniff(head: bytes) -> str:
    """Return the compression of data with these first bytes: gzip, zstd, bzip2, xz or none."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return "zstd" if head[1:4] == _SKIPPABLE and head[:1] and head[0] >> 4 == 5 else "none"


class _LargeWindowNeeded(Exception):
    """A stream needs a large window. `consumed`: its first bytes."""

    def __init__(self, consumed: bytes) -> None:
        super().__init__()
        self.consumed = consumed


class Decompressor:
    """Decompresses a stream. `take` returns its next bytes, none at its end.

    `checkpoints` receives the output, and the positions where decompression could start.
    `hold_large_window` is entered for as long as a stream needs a large window.
    """

    def __init__(
        self,
        take: Callable[[], bytes],
        limits: Limits,
        checkpoints: CheckpointBuilder | None = None,
        hold_large_window: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._take = take
        self._limits = limits
        self._checkpoints = checkpoints or CheckpointBuilder()
        self._hold_large_window = hold_large_window
        self._input_size = 0
        self._output = OutputLimits(limits)
        self.compression = ""

    def pieces(self) -> Iterator[bytes]:
        """Yield the output in order, with an empty piece at the end of each span.

        Reads the input to its end. Raises Malformed, LimitExceeded and the errors of `take`.
        """
        # A whole block is needed to recognize a tar.
        head = self._next()
        while len(head) < BLOCK and (more := self._next()):
            head += more
        self.compression = "none" if checksum_holds(head[:BLOCK]) else sniff(head)
        self._checkpoints.begin(self.compression)
        for piece in self._decoded(head):
            if piece:
                self._output.add(len(piece), self._input_size)
            yield piece
            if piece and self._checkpoints.add(piece):
                yield b""
        if self._checkpoints.end(self._input_size):
            yield b""

    def _next(self) -> bytes:
        piece = self._take()
        self._input_size += len(piece)
        return piece

    def _drain(self) -> None:
        """Read padding: the digest of the blob covers it."""
        while self._next():
            pass

    def _decoded(self, head: bytes) -> Iterator[bytes]:
        blocks = open_block_inflater() if self.compression == "gzip" else None
        if self.compression == "none":
            yield from self._stored(head)
        elif blocks is not None:
            yield from self._gzip(blocks, head)
        else:
            yield from self._members(head)

    def _stored(self, piece: bytes) -> Iterator[bytes]:
        offset = 0
        while piece:
            for start in range(0, len(piece), _STORED):
                if self._checkpoints.offer(offset + start):
                    yield b""
                yield piece[start : start + _STORED]
            offset += len(piece)
            piece = self._next()

    def _gzip(self, decoder: BlockInflater, data: bytes) -> Iterator[bytes]:
        """Decompress gzip members, with checkpoints also between blocks."""
        # The offset of the end of the decoder's input, and the output before this member.
        end, output = len(data), 0
        decoder.feed(data)
        while True:
            if self._checkpoints.offer(end - decoder.remaining):
                yield b""
            while not decoder.eof:
                if decoder.needs_input and not decoder.remaining:
                    data = self._next()
                    if not data:
                        raise Malformed("the layer ends in the middle of its gzip stream")
                    end += len(data)
                    decoder.feed(data)
                piece = decoder.step(self._checkpoints.bytes_to_next)
                if piece:
                    yield piece
                if decoder.between is not None and self._checkpoints.offer(
                    end - decoder.remaining, decoder.between
                ):
                    yield b""
            self._output.add_stream(empty=output == self._output.size)
            output = self._output.size
            rest = len(data) - decoder.remaining
            # Zeros between members are padding. The next member may start in the next piece.
            if sniff(data[rest : rest + _HEAD]) != "gzip":
                data = data[rest:].lstrip(b"\0")
                while len(data) < _HEAD and (more := self._next()):
                    end += len(more)
                    data = (data + more).lstrip(b"\0")
                if sniff(data) != "gzip":
                    break
                decoder.feed(data)
            decoder.next_member()
        self._drain()

    def _decoder(self, window: int) -> _StreamDecoder:
        window = min(window, self._limits.layer_window)
        if self.compression == "gzip":
            return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        if self.compression == "zstd":
            return zstd.open_frame(window)
        if self.compression == "bzip2":
            return bz2.BZ2Decompressor()
        # liblzma needs memory beside the dictionary.
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * window)

    def _members(self, head: bytes) -> Iterator[bytes]:
        source = StreamInput(head, self._next)
        while sniff(source.head(_HEAD)) == self.compression:
            if self._checkpoints.offer(source.offset):
                yield b""
            yield from self._member(source)
        self._drain()

    def _member(self, source: StreamInput) -> Iterator[bytes]:
        """Decompress one complete stream."""
        output = self._output.size
        source.begin()
        try:
            decoder = yield from self._decode(source, self._decoder(_SMALL_WINDOW), b"")
        except _LargeWindowNeeded as needed:
            with self._hold_large_window():
                decoder = yield from self._decode(
                    source, self._decoder(self._limits.layer_window), needed.consumed
                )
        source.give_back(decoder.unused_data)
        self._output.add_stream(empty=output == self._output.size)

    def _decode(
        self, source: StreamInput, decoder: _StreamDecoder, consumed: bytes
    ) -> Generator[bytes, None, _StreamDecoder]:
        """Decompress one stream. `consumed`: its first bytes, from an earlier attempt.

        Raises _LargeWindowNeeded before the first output.
        """
        # The input is held until the first output, in case it is needed for another attempt.
        is_small, fed, output = not consumed, b"", 0
        try:
            while not decoder.eof:
                data = consumed or (source.take() if decoder.needs_input else b"")
                consumed = b""
                if not data and decoder.needs_input:
                    raise Malformed(
                        f"the layer ends in the middle of its {self.compression} stream"
                    )
                fed = fed + data if is_small and not output else b""
                piece = decoder.decompress(data, _OUTPUT)
                output += len(piece)
                if piece:
                    yield piece
        except _DECODER_ERRORS as error:
            explained = self._explained(error)
            if is_small and not output and isinstance(explained, LimitExceeded):
                raise _LargeWindowNeeded(fed) from None
            raise explained from None
        return decoder

    def _explained(self, error: Exception) -> Malformed | LimitExceeded:
        """Convert a decoder's error. A stream that needs too much memory is not damaged."""
        if any(words in str(error).lower() for words in _MEMORY_LIMIT):
            kind = "window" if self.compression == "zstd" else "dictionary"
            return LimitExceeded(
                f"the layer's {self.compression} {kind} is larger than"
                f" limits.layer_window ({self._limits.layer_window})"
            )
        return Malformed(f"the layer has invalid {self.compression} data: {error}")
