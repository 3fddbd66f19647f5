"""Where layers become trees: each is streamed once, indexed beside the event loop, and what was
made of it is kept under its digest.

What is kept of a layer is its index (`layer-index.8`): its entries, and the spans by which parts of
the blob are read. It outlives the blob: a mount that finds it lists at once, and fetches the spans
that are read. What layers make together is kept by their digests (`layer-tree.3`), and so is what
stat shows of their root (`layer-root.1`). Of a compression that cannot be entered in the middle the
plain tar is kept too (`layer-plain.1`), and made again when it is gone. A layer that comes with a
table of contents (eStargz, zstd:chunked) is not streamed: the table is its index
(`layer-index-toc.4`).

Rules that hold here: one unpacking of a layer at a time, whoever asks; nothing of a layer is served
before all of it was read and verified once, and nothing that is fetched later without its span's
checksum; unpacking happens in threads of its own number, since those threads wait for reads that
need threads too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from weakref import WeakValueDictionary

import trio

from ocifs.concurrency import SingleFlight, guarded, in_thread, note_progress
from ocifs.content import Blob, BlobReader, DerivedCache
from ocifs.errors import CacheFailed, IntegrityError, LimitExceeded, Malformed, OcifsError
from ocifs.layers.derived import load, save
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.codec import decode, encode
from ocifs.layers.index.entry import LayerEntry, LayerIndex
from ocifs.layers.index.packed import pack
from ocifs.layers.indexing.pipeline import IndexingPipeline, Layer, check
from ocifs.layers.merge import tree as merged
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.root_attributes import RootAttributesCache
from ocifs.layers.merge.tree import MergedTree
from ocifs.layers.spans.reader import SpanReader
from ocifs.layers.spans.room import Room
from ocifs.layers.spans.span import FROM_TAR
from ocifs.layers.spans.uncompressed import UncompressedTars
from ocifs.layers.toc.crfs import Toc
from ocifs.layers.toc.formats import SOCI, Promise, TocFinder, fetch_table, promised
from ocifs.layers.waiting import run_concurrently, run_with_progress
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Limits

log = logging.getLogger("ocifs.layers")

TOC_INDEX = "layer-index-toc.4"  # an index by a table of contents that came with the layer
# at a time, for any number of processors: each needs its decoder's window and pieces of the blob
_UNPACKINGS = 2
_ROOM = 8 * MIB  # of spans that are being decoded, packed and plain
_CACHED_PLAIN = 3 * MIB  # of spans that are on the disk as plain bytes, and cost little
_PIECE = 2 * MIB  # read of a blob at a time
_WARNED = 1000  # layers with a warning that are remembered at a time


class LayerService:
    """Makes trees of the layers that a BlobReader reads, and keeps what it made on a DerivedCache."""

    def __init__(
        self,
        blobs: BlobReader,
        shelf: DerivedCache,
        nursery: trio.Nursery,
        limits: Limits,
        *,
        tables: bool = True,
    ) -> None:
        """Without `tables`, those that come with layers are left alone: every layer is read as a
        whole first.
        """
        self.blobs = blobs
        self._nursery = nursery
        self._shelf = shelf
        self._limits = limits
        self._tables = tables
        self._prefetched: set[Digest] = set()
        self._warned: set[Digest] = set()
        self._indexing: SingleFlight[Digest, LayerIndex] = SingleFlight(nursery)
        self._unpacking: SingleFlight[tuple[Digest, bool], LayerIndex] = SingleFlight(nursery)
        self._merging: SingleFlight[tuple[object, ...], MergedTree] = SingleFlight(nursery)
        self._indices: WeakValueDictionary[Digest, LayerIndex] = WeakValueDictionary()
        self._trees: WeakValueDictionary[tuple[object, ...], MergedTree] = WeakValueDictionary()
        self.roots = RootAttributesCache(shelf)
        self._tars = UncompressedTars(shelf)
        room = Room(_ROOM)
        self._reader = SpanReader(blobs, nursery, room)
        kept = _UncompressedSource(self._tars, self._unpack, self._part)
        self._kept_reader = SpanReader(kept, nursery, room, _CACHED_PLAIN)
        self._threads = trio.CapacityLimiter(_UNPACKINGS)
        self._large = threading.Lock()  # held by the unpacking whose decoder needs much memory

    def layer(
        self,
        blob: Blob,
        diff_id: Digest | None,
        annotations: Mapping[str, str],
        table: Blob | None = None,
        ask: TocFinder | None = None,
    ) -> Layer:
        """A layer as its descriptor and its image's config describe it.

        `table`: a table of contents beside it that is to be believed; `ask`: for tables of layers
        that have none, though their annotations name it.
        """
        promise = None
        try:
            promise = promised(annotations, table, ask) if self._tables else None
        except Malformed as error:
            self._warn(blob, error)
        return Layer(blob, diff_id, promise)

    def _warn(self, blob: Blob, error: Malformed) -> None:
        """Log, once a layer, that its table of contents is not used."""
        if blob.digest in self._warned:
            return
        if len(self._warned) >= _WARNED:
            self._warned.clear()
        self._warned.add(blob.digest)
        log.warning(
            "the table of contents of layer %s of %s is left alone: %s",
            blob.digest,
            blob.repository,
            error,
        )

    async def index(self, layer: Layer) -> LayerIndex:
        """The entries of a layer.

        Raises Malformed, IntegrityError, LimitExceeded and whatever reading the blob raises.
        """
        try:
            index = self._indices.get(layer.key)
            if index is None:
                index = await self._indexing.run(layer.key, lambda: self._index(layer))
            check(layer, index)
        except (Malformed, LimitExceeded) as error:
            if str(layer.blob.digest) in str(error):
                raise
            raise type(error)(f"layer {layer.blob.digest}: {error}", hint=error.hint) from None
        return index

    async def tree(
        self, layers: Sequence[Layer], *, markers: bool = True, alone: bool = False
    ) -> MergedTree:
        """Layers merged, lowest first, indexed side by side.

        `markers` and `alone` as `overlay.merge` has them.
        """
        if len(layers) > self._limits.layers:
            raise LimitExceeded(
                f"the image has {len(layers)} layers, limits.layers allows {self._limits.layers}"
            )
        key = (tuple(layer.key for layer in layers), markers, alone)

        async def work() -> MergedTree:
            indices: list[LayerIndex | None] = [None] * len(layers)

            async def one(number: int) -> None:
                indices[number] = await self.index(layers[number])

            await run_concurrently(one, len(layers))
            found = [index for index in indices if index is not None]

            def make() -> MergedTree:
                # A layer whose table was refused is another one on disk: what is refused may
                # change.
                pairs = zip(layers, found, strict=True)
                keys = tuple(
                    layer.blob.digest if index.diff_id else layer.key for layer, index in pairs
                )
                name = _name(keys, markers, alone)
                return self._merged(
                    name, found, lambda: merge(found, self._limits, markers=markers, alone=alone)
                )

            tree = await run_with_progress(make)
            self._trees[key] = tree
            return tree

        return self._trees.get(key) or await self._merging.run(key, work)

    def _merged(
        self, name: Digest, layers: Sequence[LayerIndex], make: Callable[[], MergedTree]
    ) -> MergedTree:
        """A merged tree from the shelf, or made and put there."""
        kept = load(self._shelf, merged.KIND, name, lambda data: merged.decode(data, layers))
        if kept is not None:
            return kept
        tree = make()
        save(self._shelf, merged.KIND, name, merged.encode(tree))
        return tree

    async def read(self, layer: Layer, entry: LayerEntry, offset: int, size: int) -> bytes:
        """Bytes [offset, offset+size) of a file, shorter only at its end; holes are zeros."""
        size = max(0, min(size, entry.size - offset))
        if len(entry.extents) == 1 and entry.extents[0].length == entry.size:
            return await self._plain(layer, entry.extents[0].plain + offset, size) if size else b""
        content = bytearray(size)
        for extent in entry.extents:
            start, stop = (
                max(offset, extent.offset),
                min(offset + size, extent.offset + extent.length),
            )
            if start < stop:
                piece = await self._plain(layer, extent.plain + start - extent.offset, stop - start)
                content[start - offset : stop - offset] = piece
        return bytes(content)

    def read_nowait(self, layer: Layer, entry: LayerEntry, offset: int, size: int) -> bytes | None:
        """The same where it lies in spans that are in memory; None: `read` is to be asked."""
        index = self._indices.get(layer.key)
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
        reader = self._kept_reader if index.spans.compression == FROM_TAR else self._reader
        with suppress(IntegrityError, Malformed):  # which are for `read` to deal with
            check(layer, index)
            return reader.read_nowait(
                layer.blob, index.spans, entry.extents[0].plain + offset, size
            )
        return None

    def readahead_nowait(self, layer: Layer, entry: LayerEntry) -> bytes | None:
        """All of a file where it lies in spans that are in memory, and behind what somebody has
        read file by file; else None.
        """
        index = self._indices.get(layer.key)
        if index is None or index.spans is None or len(entry.extents) != 1:
            return None
        reader = self._kept_reader if index.spans.compression == FROM_TAR else self._reader
        if not reader.is_sequential(layer.blob, entry.extents[0].plain):
            return None
        return self.read_nowait(layer, entry, 0, entry.size)

    def acquire(self, layer: Layer) -> None:
        """Somebody opened a file of the layer: what is kept of it stays until it is let go."""
        self.blobs.acquire(layer.blob.digest)
        self._tars.acquire(layer.blob.digest)

    def release(self, layer: Layer) -> None:
        """Somebody who opened a file of the layer closed it."""
        self.blobs.release(layer.blob.digest)
        self._tars.release(layer.blob.digest)

    def close_idle(self, idle: float) -> None:
        """Let go of what nobody has open or has read for `idle` seconds; note on disk that the rest
        is used.
        """
        self._tars.close_idle(idle)

    async def _plain(self, layer: Layer, start: int, size: int) -> bytes:
        """Bytes [start, start+size) of the plain tar."""
        index = await self.index(layer)
        spans = index.spans
        if spans is None:
            raise Malformed(f"nothing says where the bytes of layer {layer.blob.digest} are")
        self._prefetch(layer, index, start)
        kept = spans.compression == FROM_TAR
        reader = self._kept_reader if kept else self._reader
        try:
            return await reader.read(layer.blob, spans, start, size)
        except (IntegrityError, Malformed) as error:
            blob = layer.blob
            log.warning(
                "layer %s of %s is read as a whole again: %s", blob.digest, blob.repository, error
            )
        # Bytes or spans are bad. Reading all of the blob finds out whether it is the blob's bytes;
        # everything else is made anew.
        if index.compression == SOCI:  # its places are those of the plain tar
            index = await self.index(replace(layer, promise=None))
            reader = (
                self._kept_reader
                if index.spans and index.spans.compression == FROM_TAR
                else self._reader
            )
            return await reader.read(layer.blob, index.spans or spans, start, size)
        if (
            index.diff_id is None
        ):  # the table says what the bytes are, and nothing could be made anew
            await self._judge(layer.blob)
            return await reader.read(layer.blob, spans, start, size)
        self._tars.discard(layer.blob.digest)
        index = await self._unpack(layer, keep_tar=kept)
        return await reader.read(layer.blob, index.spans or spans, start, size)

    async def _judge(self, blob: Blob) -> None:
        """Read a blob to its end, by which one that came damaged fails by its digest, and is
        dropped.
        """
        with suppress(IntegrityError):
            for start in range(0, blob.size, _PIECE):
                await self.blobs.read_blob(blob, start, _PIECE, blob.size)
                note_progress()

    def _prefetch(self, layer: Layer, index: LayerIndex, start: int) -> None:
        """Where a file is read that the image's maker found to be read first, fetch all of those,
        once, while nobody waits.
        """
        length = min(index.prefetch, self._limits.prefetch_bytes)
        if not length or index.spans is None or layer.key in self._prefetched:
            return
        if index.spans[index.spans.numbers(start, start + 1)[0]].start < length:
            self._prefetched.add(layer.key)
            self._nursery.start_soon(guarded, "prefetching", self._fetch_first, layer.blob, length)

    async def _fetch_first(self, blob: Blob, length: int) -> None:
        try:
            for start in range(0, length, _PIECE):  # for the cache: the bytes are dropped
                await self.blobs.read_blob(blob, start, min(_PIECE, length - start), length)
        except OcifsError as error:
            log.info(
                "what is to be read first of layer %s was not prefetched: %s", blob.digest, error
            )

    async def _index(self, layer: Layer) -> LayerIndex:
        kind = INDEX if layer.promise is None else TOC_INDEX
        index = await in_thread(self._find_index, kind, layer.key)
        if index is None and layer.promise is not None:
            index = await self._list(layer, layer.promise)
            if index is None:  # its table was refused
                index = await self.index(replace(layer, promise=None))
        if index is None:
            index = await self._unpack(layer)
        self._indices[layer.key] = index
        return index

    async def _list(self, layer: Layer, promise: Promise) -> LayerIndex | None:
        """The index by the table of contents that came with a layer; None where that is refused."""
        table = await fetch_table(self.blobs, layer.blob, promise, self._limits)
        return (
            None if table is None else await in_thread(self._keep_table, layer.key, promise, table)
        )

    def _keep_table(self, key: Digest, promise: Promise, table: Toc) -> LayerIndex:
        index = LayerIndex(
            pack(table.entries), None, table.size, promise.form, table.spans, table.prefetch
        )
        save(self._shelf, TOC_INDEX, key, encode(index))
        return index

    def _find_index(self, kind: str, key: Digest) -> LayerIndex | None:
        return load(self._shelf, kind, key, decode)

    async def _part(self, blob: Blob, start: int, length: int) -> bytes:
        unpacking = IndexingPipeline(self.blobs, self._shelf, self._limits, Layer(blob))
        return await unpacking.part(start, length, self._threads, self._large)

    async def _unpack(self, layer: Layer, *, keep_tar: bool = False) -> LayerIndex:
        if layer.blob.size > self._limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has {layer.blob.size} bytes, limits.layer_bytes allows {self._limits.layer_bytes}"
            )

        async def work() -> LayerIndex:
            unpacking = IndexingPipeline(
                self.blobs, self._shelf, self._limits, layer, keep_tar=keep_tar
            )
            index = await unpacking.run(self._threads, self._large)
            self._indices[layer.blob.digest] = index
            return index

        return await self._unpacking.run((layer.blob.digest, keep_tar), work)


def _name(digests: Sequence[Digest], markers: bool, alone: bool) -> Digest:
    """What names a merged tree: what it was made from."""
    return Digest.of(" ".join([*map(str, digests), str(markers), str(alone)]).encode())


class _UncompressedSource:
    """Plain tars in place of blobs, made where they are gone.

    If the disk takes none, each part is unpacked anew.
    """

    def __init__(
        self,
        tars: UncompressedTars,
        unpack: Callable[..., Awaitable[LayerIndex]],
        part: Callable[[Blob, int, int], Awaitable[bytes]],
    ) -> None:
        self._tars = tars
        self._unpack = unpack
        self._part = part

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        for is_cached in (True, False):
            if not is_cached:
                await self._unpack(Layer(blob), keep_tar=True)
            plain = await self._tars.find(blob.digest)
            if plain is not None:
                with suppress(CacheFailed):
                    return await plain.read(offset, length)
                self._tars.discard(blob.digest)
        return await self._part(blob, offset, length)
