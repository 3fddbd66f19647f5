"""Reads the content of files in layers, through the spans of the layer's index.

    read          waits for the blob, the cache or a worker thread
    read_nowait   returns bytes that are in memory, or None; the event loop calls it first

If bytes or spans turn out to be damaged, `read` reads once more, after a repair:

- With positions in the tar (an ordinary layer, SOCI) the whole layer is indexed again, and the
  range is read from the new spans.
- With positions of a table of contents there is nothing to index. The whole blob is read, so that a
  damaged blob in the cache fails its digest and is dropped.

A layer without checkpoints (bzip2, xz, some zstd) is read from its uncompressed tar in the cache,
which is created again if it was evicted.

Rules:

- No byte is returned before its span was verified.
- The files that the image's author marked as read first are prefetched once, when one is read.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import trio
from cachetools import LRUCache

from ocifs.concurrency import guarded, note_progress
from ocifs.content import Blob, BlobReader, DerivedCache
from ocifs.errors import CacheFailed, IntegrityError, Malformed, OcifsError
from ocifs.layers.index.entry import LayerEntry, LayerIndex
from ocifs.layers.indexes import LayerIndexes
from ocifs.layers.indexing.layer import Layer, check_diff_id
from ocifs.layers.spans.budget import MemoryBudget
from ocifs.layers.spans.reader import SpanReader
from ocifs.layers.spans.span import FROM_TAR, SpanMap
from ocifs.layers.spans.uncompressed import UncompressedTars
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Limits

log = logging.getLogger("ocifs.layers")

_DECODING = 8 * MIB  # memory for decodings, of compressed and uncompressed bytes
# Spans of uncompressed tars are on the local disk, so caching them in memory saves little.
_CACHED_UNCOMPRESSED = 3 * MIB
_PIECE = 2 * MIB  # of a blob that is read for the cache
_PREFETCHED = 10_000  # layers in memory


class LayerReader:
    """Reads files of layers."""

    def __init__(
        self,
        indexes: LayerIndexes,
        blobs: BlobReader,
        derived: DerivedCache,
        nursery: trio.Nursery,
        limits: Limits,
    ) -> None:
        self._indexes = indexes
        self._blobs = blobs
        self._nursery = nursery
        self._limits = limits
        self._prefetched: LRUCache[Digest, bool] = LRUCache(_PREFETCHED)
        self._tars = UncompressedTars(derived)
        budget = MemoryBudget(_DECODING)
        self._blob_spans = SpanReader(blobs, nursery, budget)
        tar_source = _UncompressedSource(self._tars, indexes)
        self._tar_spans = SpanReader(tar_source, nursery, budget, _CACHED_UNCOMPRESSED)

    async def read(self, layer: Layer, entry: LayerEntry, offset: int, size: int) -> bytes:
        """Read bytes [offset, offset+size) of a file, fewer only at its end. Holes are zeros."""
        size = max(0, min(size, entry.size - offset))
        # Nearly all files have one extent. Sparse files have several, or none.
        if len(entry.extents) == 1 and entry.extents[0].length == entry.size:
            position = entry.extents[0].position + offset
            return await self._read_spans(layer, position, size) if size else b""
        content = bytearray(size)
        for extent in entry.extents:
            start = max(offset, extent.offset)
            stop = min(offset + size, extent.offset + extent.length)
            if start < stop:
                position = extent.position + start - extent.offset
                piece = await self._read_spans(layer, position, stop - start)
                content[start - offset : stop - offset] = piece
        return bytes(content)

    def read_nowait(self, layer: Layer, entry: LayerEntry, offset: int, size: int) -> bytes | None:
        """Read from spans in memory; None if `read` is needed, also to handle an error."""
        index = self._indexes.get_nowait(layer)
        # `read` starts the prefetch of a layer, so the first read of it must not be answered here.
        if (
            index is None
            or index.spans is None
            or (index.prefetch and layer.key not in self._prefetched)
        ):
            return None
        if len(entry.extents) != 1 or entry.extents[0].length != entry.size:
            return None
        size = max(0, min(size, entry.size - offset))
        if not size:
            return b""
        position = entry.extents[0].position + offset
        with suppress(IntegrityError, Malformed):
            check_diff_id(layer, index)
            reader = self._span_reader(index.spans)
            return reader.read_nowait(layer.blob, index.spans, position, size)
        return None

    def readahead_nowait(self, layer: Layer, entry: LayerEntry) -> bytes | None:
        """Return a whole file from memory if it follows files that were read sequentially."""
        index = self._indexes.get_nowait(layer)
        if index is None or index.spans is None or len(entry.extents) != 1:
            return None
        reader = self._span_reader(index.spans)
        if not reader.is_sequential(layer.blob, entry.extents[0].position):
            return None
        return self.read_nowait(layer, entry, 0, entry.size)

    def acquire(self, layer: Layer) -> None:
        """Keep the layer's data open: a file of the layer was opened."""
        self._blobs.acquire(layer.blob.digest)
        self._tars.acquire(layer.blob.digest)

    def release(self, layer: Layer) -> None:
        """Undo one `acquire`: a file of the layer was closed."""
        self._blobs.release(layer.blob.digest)
        self._tars.release(layer.blob.digest)

    def close_idle(self, idle: float) -> None:
        """Close tars that are not acquired and were not read for `idle` seconds."""
        self._tars.close_idle(idle)

    def _span_reader(self, spans: SpanMap) -> SpanReader:
        return self._tar_spans if spans.compression == FROM_TAR else self._blob_spans

    async def _read_spans(self, layer: Layer, start: int, size: int) -> bytes:
        """Read the range [start, start+size) of positions in the layer."""
        index = await self._indexes.get(layer)
        spans = index.spans
        if spans is None:
            raise Malformed(f"layer {layer.blob.digest} has an index without spans")
        self._prefetch(layer, index, start)
        try:
            return await self._span_reader(spans).read(layer.blob, spans, start, size)
        except (IntegrityError, Malformed) as error:
            log.warning(
                "layer %s of %s is indexed again: %s",
                layer.blob.digest,
                layer.blob.repository,
                error,
            )
        spans = await self._repaired_spans(layer, index, spans)
        return await self._span_reader(spans).read(layer.blob, spans, start, size)

    async def _repaired_spans(self, layer: Layer, index: LayerIndex, spans: SpanMap) -> SpanMap:
        """Return spans for another attempt, after bytes or spans turned out to be damaged."""
        if self._indexes.formats.has_tar_positions(index.compression):
            return (await self._indexes.get(layer.without_toc())).spans or spans
        # Only an index from a table of contents has no diff ID.
        if index.diff_id is None:
            await self._read_whole(layer.blob)
            return spans
        # The open tar may be the damaged one.
        self._tars.discard(layer.blob.digest)
        keep_tar = spans.compression == FROM_TAR
        return (await self._indexes.build(layer, keep_tar=keep_tar)).spans or spans

    async def _read_whole(self, blob: Blob) -> None:
        """Read a blob to its end, so that a damaged one fails its digest and is dropped."""
        with suppress(IntegrityError):
            for start in range(0, blob.size, _PIECE):
                await self._blobs.read_blob(blob, start, _PIECE, blob.size)
                note_progress()

    def _prefetch(self, layer: Layer, index: LayerIndex, start: int) -> None:
        """Fetch the files to prefetch in the background, if the position is in one of them."""
        length = min(index.prefetch, self._limits.prefetch_bytes)
        if not length or index.spans is None or layer.key in self._prefetched:
            return
        if index.spans[index.spans.numbers(start, start + 1)[0]].start < length:
            # Before the fetch, so that other reads during it do not start a second one.
            self._prefetched[layer.key] = True
            self._nursery.start_soon(guarded, "prefetching", self._fetch_first, layer.blob, length)

    async def _fetch_first(self, blob: Blob, length: int) -> None:
        """Read the first bytes of a blob into the cache."""
        try:
            for start in range(0, length, _PIECE):
                await self._blobs.read_blob(blob, start, min(_PIECE, length - start), length)
        except OcifsError as error:
            log.info("cannot prefetch the start of layer %s: %s", blob.digest, error)


class _UncompressedSource:
    """Reads uncompressed tars in place of blobs, and creates them if they are missing.

    If the cache cannot store the tar, each range is decompressed from the blob's start.
    """

    def __init__(self, tars: UncompressedTars, indexes: LayerIndexes) -> None:
        self._tars = tars
        self._indexes = indexes

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        # The second attempt creates the tar: it was never cached, evicted, or cannot be read.
        for is_first in (True, False):
            if not is_first:
                await self._indexes.build(Layer(blob), keep_tar=True)
            tar = await self._tars.find(blob.digest)
            if tar is not None:
                with suppress(CacheFailed):
                    return await tar.read(offset, length)
                self._tars.discard(blob.digest)
        return await self._indexes.extract(blob, offset, length)
