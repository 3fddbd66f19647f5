"""Reads parts of layers from their blobs: only the spans that are needed, each verified.

The layer service has one reader for blobs and one for uncompressed tars. It calls `read_nowait`
first, and `read` if that returns None; both on the event loop. Spans are decoded in worker threads.

The reader holds in memory:

- decoded spans, the last used ones up to `cached` bytes,
- sequences of reads (`sequential.py`), from which it decides what to decode ahead,
- which spans are being decoded ahead.

A reader that has read three times the length of the next span gets it decoded ahead, a reader that
has read more gets more.

Rules:

- A span is decoded by one task at a time, for any number of readers.
- No byte is returned that was not verified.
- Memory is bounded for any number of readers: of decoded spans, of decodings (`budget.py`), and of
  spans that are decoded ahead.
"""

from __future__ import annotations

import sys
from typing import Protocol, TypeAlias

import trio
from cachetools import LRUCache

from ocifs.concurrency import SingleFlight, guarded, in_thread, note_progress
from ocifs.content import Blob
from ocifs.errors import OcifsError
from ocifs.layers.spans.budget import MemoryBudget
from ocifs.layers.spans.checkpoints import decode
from ocifs.layers.spans.sequential import SequentialReads
from ocifs.layers.spans.span import Span, SpanMap
from ocifs.oci.digest import Digest
from ocifs.settings import KIB, MIB


class SpanSource(Protocol):
    """Reads the bytes that spans are decoded from. A BlobReader is one."""

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        """Read bytes [offset, offset+length), fewer only at the end."""
        ...


CACHED = 12 * MIB
# A sequence this many times as long as the next span has that span decoded ahead; the second factor
# is for several spans.
_NEXT_FACTOR, _SEVERAL_FACTOR = 3, 6
_SEQUENTIAL = 64 * KIB  # length of a sequence that is expected to continue
_Key: TypeAlias = tuple[Digest, int, int, int]


class SpanReader:
    """Reads the uncompressed content of layers, by their spans."""

    def __init__(
        self, blobs: SpanSource, nursery: trio.Nursery, budget: MemoryBudget, cached: int = CACHED
    ) -> None:
        """`budget`: for decoding.

        `cached`: bytes of decoded spans to hold, two thirds of which may be decoded ahead.
        """
        self._blobs = blobs
        self._nursery = nursery
        self._budget = budget
        self._decoding: SingleFlight[_Key, bytes] = SingleFlight(nursery)
        self._decoded: LRUCache[_Key, bytes] = LRUCache(cached, getsizeof=len)
        self._max_ahead = cached * 2 // 3
        self._sequences = SequentialReads()
        # The last span that was read: files of one span are often read one after the other.
        self._latest: tuple[SpanMap, range, int, int, bytes] | None = None
        # The spans that are being decoded ahead, and their length in total.
        self._ahead: set[_Key] = set()
        self._ahead_bytes = 0
        # The last decision to decode nothing: which span followed, and the length of a sequence at
        # which to decide again.
        self._decided: tuple[SpanMap | None, int, int] = (None, 0, 0)

    async def read(self, blob: Blob, spans: SpanMap, start: int, length: int) -> bytes:
        """Read the range [start, start+length) of positions.

        Raises Malformed if spans do not cover it, IntegrityError, and the errors of the source.
        """
        numbers = spans.numbers(start, start + length)
        sequence = self._sequences.record(blob.digest, start, length)
        pieces = []
        for number in numbers:
            span = spans[number]
            output = await self._get(blob, spans.compression, span)
            pieces.append(output[max(0, start - span.position) : start + length - span.position])
        self._decode_ahead(blob, spans, numbers, sequence)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_nowait(self, blob: Blob, spans: SpanMap, start: int, length: int) -> bytes | None:
        """Return the range if all its spans are in memory, else None.

        Raises Malformed if spans do not cover it.
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
                first, begin, size = spans.location(number)
                output = self._decoded.get((blob.digest, first, begin, size))
                if output is None:
                    return None
                pieces.append(output[max(0, start - begin) : start + length - begin])
                self._latest = spans, range(number, number + 1), begin, begin + size, output
        sequence = self._sequences.record(blob.digest, start, length)
        self._decode_ahead(blob, spans, numbers, sequence)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def is_sequential(self, blob: Blob, start: int) -> bool:
        """Whether a read at `start` would continue a long sequence of reads."""
        return self._sequences.length_before(blob.digest, start) >= _SEQUENTIAL

    def _decode_ahead(self, blob: Blob, spans: SpanMap, numbers: range, sequence: int) -> None:
        """Start to decode spans behind `numbers`, depending on the length of the sequence."""
        if not numbers:
            return
        following = numbers[-1] + 1
        decided_spans, decided_number, least = self._decided
        if decided_spans is spans and decided_number == following and sequence < least:
            return
        total, least = 0, sys.maxsize
        for number in range(following, len(spans)):
            start, position, length = spans.location(number)
            total += length
            if number > following and total > self._max_ahead:
                break
            least = (_NEXT_FACTOR if number == following else _SEVERAL_FACTOR) * total
            if sequence < least:
                break
            least = sys.maxsize
            key = (blob.digest, start, position, length)
            if key not in self._decoded and key not in self._ahead:
                if self._ahead and self._ahead_bytes + length > self._max_ahead:
                    # Other spans are being decoded ahead: decide again with the next read.
                    return
                self._ahead.add(key)
                self._ahead_bytes += length
                self._nursery.start_soon(
                    guarded,
                    "decoding ahead",
                    self._decode_one_ahead,
                    blob,
                    spans.compression,
                    spans[number],
                )
        self._decided = spans, following, least

    async def _get(self, blob: Blob, compression: str, span: Span) -> bytes:
        key = _key(blob, span)
        output = self._decoded.get(key)
        if output is not None:
            return output
        return await self._decoding.run(key, lambda: self._decode(blob, compression, span))

    async def _decode_one_ahead(self, blob: Blob, compression: str, span: Span) -> None:
        """Decode a span in the background. An error is left to the reader that needs the span."""
        key = _key(blob, span)
        try:
            if key not in self._decoded:
                await self._decoding.run(key, lambda: self._decode(blob, compression, span))
        except OcifsError:
            return
        finally:
            self._ahead.discard(key)
            self._ahead_bytes -= span.length

    async def _decode(self, blob: Blob, compression: str, span: Span) -> bytes:
        compressed = span.stop - span.start
        # Verifying blocks and setting up the decoder copy the compressed bytes. The output comes in
        # pieces, which are joined.
        async with self._budget.reserve(2 * compressed + 2 * (span.skip + span.length)):
            data = await self._blobs.read_blob(blob, span.start, compressed)
            note_progress()
            output = await in_thread(decode, compression, span, data)
            del data
            # cachetools raises ValueError for a value that is larger than the whole cache.
            if len(output) <= self._decoded.maxsize:
                self._decoded[_key(blob, span)] = output
        return output


def _key(blob: Blob, span: Span) -> _Key:
    return blob.digest, span.start, span.position, span.length
