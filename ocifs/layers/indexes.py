"""Layer indexes: from memory, from the cache, from a table of contents, or from the whole layer.

`LayerIndexes.get` tries these in turn:

1. an index in memory. It is held weakly, so it lives as long as a tree that uses it.
2. an index in the cache: `layer-index.9` of an ordinary layer, `layer-index-toc.5` of a lazy one.
   It outlives the blob, so a later mount lists the layer without reading it.
3. the layer's table of contents, if it has one that is used (`toc/formats.py`).
4. one pass over the whole layer (`indexing/pipeline.py`).

Tasks of a mount call this on the event loop. Files are read and indexes decoded in worker threads.

Rules:

- One pass over a layer at a time, for any number of callers, and few passes over all layers
  (`PassLimits`).
- A pass has its own thread limiter: its thread blocks on reads that need worker threads, so a
  shared limiter could deadlock.
- An error names the layer.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

import trio

from ocifs.concurrency import SingleFlight, in_thread
from ocifs.content import Blob, BlobReader, DerivedCache
from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.derived import load, save
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.codec import decode, encode
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.index.packed import pack
from ocifs.layers.indexing.layer import Layer, check_diff_id
from ocifs.layers.indexing.pipeline import IndexingPipeline, PassLimits
from ocifs.layers.spans.windows import open_windows
from ocifs.layers.toc.formats import TocFormats
from ocifs.layers.toc.protocol import Toc, TocRef, TocSource
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

TOC_INDEX = "layer-index-toc.5"


class LayerIndexes:
    """The indexes of layers that a BlobReader reads, cached in a DerivedCache."""

    def __init__(
        self,
        blobs: BlobReader,
        derived: DerivedCache,
        nursery: trio.Nursery,
        limits: Limits,
        formats: TocFormats,
    ) -> None:
        self.formats = formats
        self._blobs = blobs
        self._derived = derived
        self._limits = limits
        self._getting: SingleFlight[Digest, LayerIndex] = SingleFlight(nursery)
        self._building: SingleFlight[tuple[Digest, bool], LayerIndex] = SingleFlight(nursery)
        self._in_memory: WeakValueDictionary[Digest, LayerIndex] = WeakValueDictionary()
        self._pass_limits = PassLimits()

    def get_nowait(self, layer: Layer) -> LayerIndex | None:
        """Return the index of a layer if it is in memory."""
        return self._in_memory.get(layer.key)

    async def get(self, layer: Layer) -> LayerIndex:
        """Return the index of a layer.

        Raises Malformed, IntegrityError, LimitExceeded and the errors of reading the blob.
        """
        try:
            index = self._in_memory.get(layer.key)
            if index is None:
                index = await self._getting.run(layer.key, lambda: self._get(layer))
            check_diff_id(layer, index)
        except (Malformed, LimitExceeded) as error:
            # The fallback in `_get` calls `get` again, which has added the name already.
            if str(layer.blob.digest) in str(error):
                raise
            raise type(error)(f"layer {layer.blob.digest}: {error}", hint=error.hint) from None
        return index

    async def build(self, layer: Layer, *, keep_tar: bool = False) -> LayerIndex:
        """Index the whole layer, and cache the result.

        `keep_tar`: also cache the uncompressed tar.
        """
        if layer.blob.size > self._limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has {layer.blob.size} bytes,"
                f" limits.layer_bytes allows {self._limits.layer_bytes}"
            )

        async def work() -> LayerIndex:
            index = await self._pipeline(layer).run(keep_tar=keep_tar)
            # Not under `layer.key`, which may be that of a table of contents.
            self._in_memory[layer.blob.digest] = index
            return index

        return await self._building.run((layer.blob.digest, keep_tar), work)

    async def extract(self, blob: Blob, start: int, length: int) -> bytes:
        """Decompress a layer up to a range of its tar, and return the range."""
        return await self._pipeline(Layer(blob)).extract(start, length)

    def _pipeline(self, layer: Layer) -> IndexingPipeline:
        return IndexingPipeline(self._blobs, self._derived, self._limits, layer, self._pass_limits)

    async def _get(self, layer: Layer) -> LayerIndex:
        kind = INDEX if layer.toc is None else TOC_INDEX
        index = await in_thread(self._load, kind, layer.key)
        if index is None and layer.toc is not None:
            index = await self._from_toc(layer, layer.toc)
            if index is None:
                index = await self.get(layer.without_toc())
        if index is None:
            index = await self.build(layer)
        self._in_memory[layer.key] = index
        return index

    async def _from_toc(self, layer: Layer, ref: TocRef) -> LayerIndex | None:
        """Index a layer by its table of contents; None if the table must not be used."""
        source = TocSource(self._blobs, layer.blob, ref, self._limits, layer.image)
        toc = await self.formats.fetch(source)
        return None if toc is None else await in_thread(self._save_toc, layer.key, ref, toc)

    def _save_toc(self, key: Digest, ref: TocRef, toc: Toc) -> LayerIndex:
        index = LayerIndex(pack(toc.entries), None, toc.size, ref.format, toc.spans, toc.prefetch)
        save(self._derived, TOC_INDEX, key, encode(index))
        return index

    def _load(self, kind: str, key: Digest) -> LayerIndex | None:
        def decode_index(data: bytes) -> LayerIndex | None:
            return decode(data, lambda: open_windows(self._derived, key))

        return load(self._derived, kind, key, decode_index)
