"""From a layer's bytes to its plain tar, decided by its first bytes: gzip (many members), zstd
(many frames), bzip2, xz or none.

A first block whose checksum as a tar header holds is a tar, whatever magic bytes its first name
begins with.

Rules that hold here:

- blocking, for a worker thread
- output is made in pieces of bounded size, whatever the input asks for
- the size, the ratio, the number of streams and the decoder's memory are bounded
- what follows a complete gzip, bzip2 or xz stream and is not a further one is padding
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

from isal import igzip_lib

from ocifs.concurrency import check_cancelled
from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers import zstd
from ocifs.layers.spans.checkpoints import CheckpointBuilder
from ocifs.layers.spans.deflate import BlockInflater, open_block_inflater
from ocifs.layers.streams import StreamInput
from ocifs.layers.tar.header import BLOCK, checksum_holds
from ocifs.settings import KIB, MIB, Limits

# A layer that is not compressed can be entered anywhere; it is cut so finely that a small file
# costs little.
_STORED = 256 * KIB
# One output piece at the most, so that a bomb costs this much memory and no more.
_OUTPUT = 1 * MIB
# The window that several unpackings may have at a time: what zstd makes up to level 19, and xz up
# to level 6.
_SMALL_WINDOW = 8 * MIB
_OFTEN = 1 << 8  # streams between two looks for cancellation
# Below this much output no ratio is judged: a tiny layer of zeros is no bomb.
_RATIO_FREE = 64 * MIB

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_HEAD = max(len(magic) for magic, _ in _MAGIC)
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f (RFC 8878, 3.1.2)

# What libzstd and liblzma say of a stream that asks for more memory than it may have.
_TOO_MUCH = ("too much memory", "memory usage limit")
_IGZIP_ERROR = cast(type[Exception], igzip_lib.error)  # the stubs say less than the module has


class _StreamDecoder(Protocol):
    """What the standard library's decompressors and isal's have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


def sniff(head: bytes) -> str:
    """The compression that the first bytes show: gzip, zstd, bzip2, xz or none."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return "zstd" if head[1:4] == _SKIPPABLE and head[:1] and head[0] >> 4 == 5 else "none"


class _LargeWindowNeeded(Exception):
    """A stream needs more memory than several may have at a time. `begun`: its first bytes."""

    def __init__(self, begun: bytes) -> None:
        super().__init__()
        self.begun = begun


class Decompressor:
    """Plain pieces of a compressed stream. `take` gives its next bytes, none at its end.

    `cutter` is shown every piece, and the places between them where decoding could begin.
    """

    def __init__(
        self, take: Callable[[], bytes], limits: Limits, cutter: CheckpointBuilder | None = None
    ) -> None:
        self._take = take
        self._limits = limits
        self._cutter = cutter or CheckpointBuilder()
        self._taken = 0  # bytes of the input
        self._streams = self._empty = 0  # complete ones, and those without content
        self._made = 0
        self.compression = ""
        self.alone: Callable[[], AbstractContextManager[None]] = (
            nullcontext  # entered for as long as a large window is needed
        )

    def pieces(self) -> Iterator[bytes]:
        """The plain bytes in order, with an empty piece wherever a span ends.

        Reads the input to its end.

        Raises Malformed, LimitExceeded and whatever `take` raises.
        """
        head = self._next()
        while len(head) < BLOCK and (more := self._next()):
            head += more
        self.compression = "none" if checksum_holds(head[:BLOCK]) else sniff(head)
        self._cutter.begin(self.compression)
        for piece in self._decoded(head):
            if piece:
                self._made += len(piece)
                self._check()
            yield piece
            if piece and self._cutter.add(piece):
                yield b""
        if self._cutter.end(self._taken):
            yield b""

    def _next(self) -> bytes:
        piece = self._take()
        self._taken += len(piece)
        return piece

    def _check(self) -> None:
        limits = self._limits
        if self._made > limits.layer_bytes:
            raise LimitExceeded(
                f"the layer unpacks to more than limits.layer_bytes ({limits.layer_bytes})"
            )
        if self._made > _RATIO_FREE and self._made > self._taken * limits.layer_ratio:
            raise LimitExceeded(
                f"the layer unpacks to over {limits.layer_ratio} times its size (limits.layer_ratio)"
            )

    def _decoded(self, head: bytes) -> Iterator[bytes]:
        blocks = open_block_inflater() if self.compression == "gzip" else None
        if self.compression == "none":
            yield from self._stored(head)
        elif blocks is not None:
            yield from self._gzip(blocks, head)
        else:
            yield from self._members(head)

    def _stored(self, piece: bytes) -> Iterator[bytes]:
        place = 0
        while piece:
            for start in range(0, len(piece), _STORED):
                if self._cutter.offer(place + start):
                    yield b""
                yield piece[start : start + _STORED]
            place += len(piece)
            piece = self._next()

    def _gzip(self, decoder: BlockInflater, data: bytes) -> Iterator[bytes]:
        """Like `_members`, with the places between blocks offered too."""
        end, made = (
            len(data),
            0,
        )  # where in the blob what was fed ends; plain bytes before this member
        decoder.feed(data)
        while True:
            if self._cutter.offer(end - decoder.left):
                yield b""
            while not decoder.eof:
                if decoder.hungry and not decoder.left:
                    data = self._next()
                    if not data:
                        raise Malformed("the layer ends in the middle of its gzip stream")
                    end += len(data)
                    decoder.feed(data)
                piece = decoder.step(self._cutter.wanted)
                if piece:
                    yield piece
                if decoder.between is not None and self._cutter.offer(
                    end - decoder.left, decoder.between
                ):
                    yield b""
            self._count_stream(empty=made == self._made)
            made = self._made
            here = len(data) - decoder.left
            if sniff(data[here : here + _HEAD]) != "gzip":
                data = data[here:].lstrip(b"\0")
                while len(data) < _HEAD and (more := self._next()):
                    end += len(more)
                    data = (data + more).lstrip(b"\0")
                if sniff(data) != "gzip":
                    break
                decoder.feed(data)
            decoder.again()
        while self._next():  # padding is read too: the digest covers it
            pass

    def _decoder(self, window: int) -> _StreamDecoder:
        window = min(window, self._limits.layer_window)
        if self.compression == "gzip":
            return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        if self.compression == "zstd":
            return zstd.open_frame(window)
        if self.compression == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * window)

    def _members(self, head: bytes) -> Iterator[bytes]:
        source = StreamInput(head, self._next)
        while sniff(source.head(_HEAD)) == self.compression:
            if self._cutter.offer(source.place):
                yield b""
            yield from self._member(source)
        while self._next():  # padding is read too: the digest covers it
            pass

    def _member(self, source: StreamInput) -> Iterator[bytes]:
        """One complete stream."""
        made = self._made
        source.begin()
        try:
            decoder = yield from self._decode(source, self._decoder(_SMALL_WINDOW), b"")
        except _LargeWindowNeeded as needed:
            with self.alone():
                decoder = yield from self._decode(
                    source, self._decoder(self._limits.layer_window), needed.begun
                )
        source.give_back(decoder.unused_data)
        self._count_stream(empty=made == self._made)

    def _decode(
        self, source: StreamInput, decoder: _StreamDecoder, begun: bytes
    ) -> Generator[bytes, None, _StreamDecoder]:
        """Decode one stream, whose first bytes may have been taken.

        Raises _LargeWindow before it has made anything.
        """
        small, fed, plain = not begun, b"", 0
        try:
            while not decoder.eof:
                data, begun = begun or (source.take() if decoder.needs_input else b""), b""
                if not data and decoder.needs_input:
                    raise Malformed(
                        f"the layer ends in the middle of its {self.compression} stream"
                    )
                fed = fed + data if small and not plain else b""
                piece = decoder.decompress(data, _OUTPUT)
                plain += len(piece)
                if piece:
                    yield piece
        except (
            _IGZIP_ERROR,
            OSError,
            EOFError,
            lzma.LZMAError,
            zstd.ZstdError,
            ValueError,
        ) as error:
            explained = self._explained(error)
            if small and not plain and isinstance(explained, LimitExceeded):
                raise _LargeWindowNeeded(fed) from None
            raise explained from None
        return decoder

    def _count_stream(self, *, empty: bool) -> None:
        """Streams cost time also if there is nothing in them: 2,000,000 empty frames are 16 MB and
        took a minute.
        """
        self._streams += 1
        self._empty += empty
        limits = self._limits
        if self._streams > limits.layer_streams:
            raise LimitExceeded(
                f"the layer has more than limits.layer_streams ({limits.layer_streams}) streams"
            )
        if self._empty > limits.layer_empty_streams + self._streams - self._empty:
            raise LimitExceeded(
                f"the layer has more empty streams than limits.layer_empty_streams ({limits.layer_empty_streams}) allows"
            )
        if not self._streams % _OFTEN:
            check_cancelled()

    def _explained(self, error: Exception) -> Malformed | LimitExceeded:
        """What a decoder's error means: a stream that wants more memory than it may have is not a
        damaged one.
        """
        if any(words in str(error).lower() for words in _TOO_MUCH):
            kind = "window" if self.compression == "zstd" else "dictionary"
            return LimitExceeded(
                f"the layer's {self.compression} {kind} is larger than limits.layer_window ({self._limits.layer_window})"
            )
        return Malformed(f"the layer has invalid {self.compression} data: {error}")
