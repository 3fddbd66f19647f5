"""Reads parts of layers from their blobs: only the spans that are asked for, each verified, the
last ones kept in memory.

It serves every layer that has a SpanMap, whether we made that while we unpacked, or it came with
the layer.

Rules that hold here: one decoding of a span at a time, whoever asks, in a worker thread; nothing is
given out that was not verified; who reads on, in a file or from one to the next, finds the next
spans decoded, or on their way; memory is bounded whatever the number of readers: that of decoded
spans, of decodings under way (room.py), and of spans that are decoded ahead.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Protocol, TypeAlias

import trio

from ocifs.concurrency import SingleFlight, guarded, in_thread, note_progress
from ocifs.content import Blob
from ocifs.errors import OcifsError
from ocifs.layers.spans.checkpoints import decode
from ocifs.layers.spans.room import Room
from ocifs.layers.spans.span import Span, SpanMap
from ocifs.oci.digest import Digest
from ocifs.settings import KIB, MIB


class SpanSource(Protocol):
    """Where a blob's bytes come from: a BlobReader is one."""

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        """Bytes [offset, offset+length), shorter only at the end."""
        ...


CACHED = 12 * MIB
_ROWS = 256  # readers who read on
# times a span's length that somebody has read in a row, for whom it is fetched and decoded ahead
_ROW = 3
_FURTHER = 6  # times the length of several spans that are so
_SURE = 64 * KIB  # who has read that much in a row will read what comes next, too
_BETWEEN = (
    4 * KIB
)  # less may lie between two files of a tar that are read one after the other: padding, and headers
# or, for who read last, such a part of what it has read in a row: entries of many links and
# directories
_LEFT_OUT = 64
_Key: TypeAlias = tuple[Digest, int, int, int]


class SpanReader:
    """Plain bytes of layers, by their spans."""

    def __init__(
        self, blobs: SpanSource, nursery: trio.Nursery, room: Room, cached: int = CACHED
    ) -> None:
        """`room`: for decoding.

        `cached`: bytes of decoded spans, of which two thirds may be read ahead.
        """
        self._blobs = blobs
        self._nursery = nursery
        self._decoding: SingleFlight[_Key, bytes] = SingleFlight(nursery)
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._size = 0
        self._room = room
        self._most = cached
        self._most_ahead = cached * 2 // 3
        # Who reads on: where it is expected, and how much it read; by that place's distance from
        # the beginning, in steps of _BETWEEN.
        self._rows: OrderedDict[tuple[Digest, int], tuple[int, int]] = OrderedDict()
        # The same of whoever read last; and the span that was read last, since files of a span are
        # often read one after the other.
        self._reading: tuple[Digest | None, int, int] = (None, 0, 0)
        self._latest: tuple[SpanMap, range, int, int, bytes] | None = None
        # What is being decoded ahead, and how many plain bytes that makes.
        self._coming: set[_Key] = set()
        self._coming_bytes = 0
        # For which span that was last looked into, and how much has to be read in a row for more.
        self._looked: tuple[SpanMap | None, int, int] = (None, 0, 0)

    async def read(self, blob: Blob, spans: SpanMap, start: int, length: int) -> bytes:
        """Plain bytes [start, start+length).

        Raises Malformed where no span has them, IntegrityError, and what reading blobs does.
        """
        numbers = spans.numbers(start, start + length)
        in_a_row = self._row(blob.digest, start, length)
        pieces = []
        for number in numbers:
            span = spans[number]
            plain = await self._plain(blob, spans.compression, span)
            pieces.append(plain[max(0, start - span.plain) : start + length - span.plain])
        self._look_ahead(blob, spans, numbers, in_a_row)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_nowait(self, blob: Blob, spans: SpanMap, start: int, length: int) -> bytes | None:
        """The same where all spans of them are in memory; else None.

        Raises Malformed where no span has them.
        """
        latest = self._latest
        if (
            latest is not None
            and latest[0] is spans
            and latest[2] <= start
            and start + length <= latest[3]
        ):
            numbers, begin = latest[1:3]
            pieces = [latest[4][start - begin : start + length - begin]]
        else:
            numbers = spans.numbers(start, start + length)
            pieces = []
            for number in numbers:
                first, begin, size = spans.place(number)
                plain = self._kept.get((blob.digest, first, begin, size))
                if plain is None:
                    return None
                pieces.append(plain[max(0, start - begin) : start + length - begin])
                self._kept.move_to_end((blob.digest, first, begin, size))
                self._latest = spans, range(number, number + 1), begin, begin + size, plain
        self._look_ahead(blob, spans, numbers, self._row(blob.digest, start, length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def is_sequential(self, blob: Blob, start: int) -> bool:
        """Whether somebody has read in a row up to here, so much that the next bytes will be read,
        too.
        """
        last, expected, before = self._reading
        if last is blob.digest and 0 <= start - expected < max(_BETWEEN, before // _LEFT_OUT):
            return before >= _SURE
        for step in (start // _BETWEEN, start // _BETWEEN - 1):
            expected, before = self._rows.get((blob.digest, step), (-1, 0))
            if 0 <= start - expected < _BETWEEN and expected >= 0:
                return before >= _SURE
        return False

    def _look_ahead(self, blob: Blob, spans: SpanMap, numbers: range, in_a_row: int) -> None:
        """Begin to decode the span behind those of a read for who has read thrice as much in a row,
        and more for who has read more.
        """
        if not numbers:
            return
        following = numbers[-1] + 1
        looked, wanting, least = self._looked
        if looked is spans and wanting == following and in_a_row < least:
            return
        total, least = 0, sys.maxsize
        for number in range(following, len(spans)):
            start, plain, length = spans.place(number)
            total += length
            if number > following and total > self._most_ahead:
                break
            least = (_ROW if number == following else _FURTHER) * total
            if in_a_row < least:
                break
            least = sys.maxsize
            key = (blob.digest, start, plain, length)
            if key not in self._kept and key not in self._coming:
                if self._coming and self._coming_bytes + length > self._most_ahead:
                    return  # others read ahead: looked at again with the next read
                self._coming.add(key)
                self._coming_bytes += length
                self._nursery.start_soon(
                    guarded, "reading ahead", self._ahead, blob, spans.compression, spans[number]
                )
        self._looked = spans, following, least

    def _row(self, digest: Digest, start: int, length: int) -> int:
        """How many bytes whoever reads these has read in a row, with them; what lies between files
        is passed over.
        """
        last, expected, before = self._reading
        if last is digest and 0 <= start - expected < max(_BETWEEN, before // _LEFT_OUT):
            self._reading = digest, start + length, before + length
            return before + length
        if last is not None:
            self._rows[last, expected // _BETWEEN] = expected, before
        in_a_row = length
        for step in (start // _BETWEEN, start // _BETWEEN - 1):
            expected, before = self._rows.get((digest, step), (-1, 0))
            if 0 <= start - expected < _BETWEEN and expected >= 0:
                del self._rows[digest, step]
                in_a_row += before
                break
        self._reading = digest, start + length, in_a_row
        if len(self._rows) > _ROWS:
            self._rows.popitem(last=False)
        return in_a_row

    async def _plain(self, blob: Blob, compression: str, span: Span) -> bytes:
        key = _key(blob, span)
        plain = self._kept.get(key)
        if plain is not None:
            self._kept.move_to_end(key)
            return plain
        return await self._decoding.run(key, lambda: self._decode(blob, compression, span))

    async def _ahead(self, blob: Blob, compression: str, span: Span) -> None:
        """Decode for a reader who reads on.

        Nobody waits for it; whoever asks for the span meets its error.
        """
        key = _key(blob, span)
        try:
            if key not in self._kept:
                await self._decoding.run(key, lambda: self._decode(blob, compression, span))
        except OcifsError:
            return
        finally:
            self._coming.discard(key)
            self._coming_bytes -= span.length

    async def _decode(self, blob: Blob, compression: str, span: Span) -> bytes:
        packed = span.stop - span.start
        # Checking blocks and entering a stream copy the packed bytes; the plain ones come in
        # pieces, which are joined.
        async with self._room.share(2 * packed + 2 * (span.skip + span.length)):
            data = await self._blobs.read_blob(blob, span.start, packed)
            note_progress()
            plain = await in_thread(decode, compression, span, data)
            del data
            self._keep(_key(blob, span), plain)
        return plain

    def _keep(self, key: _Key, plain: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = plain
            self._size += len(plain)
        while self._size > self._most:
            _, gone = self._kept.popitem(last=False)
            self._size -= len(gone)


def _key(blob: Blob, span: Span) -> _Key:
    return blob.digest, span.start, span.plain, span.length
