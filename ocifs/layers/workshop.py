"""Where layers become trees: each is streamed once, indexed beside the event loop, and what was made of it is kept under its digest.

What is kept of a layer is its index (`layer-index.2`): its entries, and the spans by which parts of the blob are read. It outlives the
blob: a mount that finds it lists at once, and fetches the spans that are read. What layers make together is kept by their digests
(`layer-tree.1`). Of a compression that cannot be entered in the middle the plain tar is kept too (`layer-plain.1`), and made again when
it is gone.

Rules that hold here: one unpacking of a layer at a time, whoever asks; nothing of a layer is served before all of it was read and verified
once, and nothing that is fetched later without its span's checksum; unpacking happens in threads of its own number, since those threads
wait for reads that need threads too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakValueDictionary

import trio

from ocifs.concurrency import SingleFlight
from ocifs.content import Blob, BlobReader, Shelf
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, OcifsError, RegistryFailed
from ocifs.layers import merged
from ocifs.layers.codec import KIND as INDEX
from ocifs.layers.codec import decode
from ocifs.layers.member import LayerIndex, Member
from ocifs.layers.merged import Tree
from ocifs.layers.overlay import merge
from ocifs.layers.plain import PlainTars
from ocifs.layers.reader import SpanReader
from ocifs.layers.span import PLAIN_TAR
from ocifs.layers.unpack import Layer, Unpacking, check
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

log = logging.getLogger("ocifs.layers")


class Workshop:
    """Makes trees of the layers that a BlobReader reads, and keeps what it made on a Shelf."""

    def __init__(self, blobs: BlobReader, shelf: Shelf, nursery: trio.Nursery, limits: Limits) -> None:
        self.blobs = blobs
        self._shelf = shelf
        self._limits = limits
        self._indexing: SingleFlight[Digest, LayerIndex] = SingleFlight(nursery)
        self._unpacking: SingleFlight[tuple[Digest, bool], LayerIndex] = SingleFlight(nursery)
        self._merging: SingleFlight[tuple[object, ...], Tree] = SingleFlight(nursery)
        self._indices: WeakValueDictionary[Digest, LayerIndex] = WeakValueDictionary()
        self._trees: WeakValueDictionary[tuple[object, ...], Tree] = WeakValueDictionary()
        self._tars = PlainTars(shelf)
        self._reader = SpanReader(blobs, nursery)
        self._kept_reader = SpanReader(_Kept(self._tars, self._unpack), nursery)
        self._threads = trio.CapacityLimiter(max(2, os.cpu_count() or 2))

    async def index(self, layer: Layer) -> LayerIndex:
        """The entries of a layer. Raises Malformed, IntegrityError, LimitExceeded and whatever reading the blob raises."""
        index = self._indices.get(layer.blob.digest)
        if index is None:
            index = await self._indexing.run(layer.blob.digest, lambda: self._index(layer))
        check(layer, index)
        return index

    async def tree(self, layers: Sequence[Layer], *, markers: bool = True, alone: bool = False) -> Tree:
        """Layers merged, lowest first, indexed side by side. `markers` and `alone` as `overlay.merge` has them."""
        key = (tuple(layer.blob.digest for layer in layers), markers, alone)

        async def work() -> Tree:
            indices: list[LayerIndex | None] = [None] * len(layers)

            async def one(number: int) -> None:
                indices[number] = await self.index(layers[number])

            await _side_by_side(one, len(layers))
            found = [index for index in indices if index is not None]

            def make() -> Tree:
                return self._merged(
                    _name(*key), found, lambda: merge(found, self._limits, markers=markers, alone=alone)
                )

            tree = await trio.to_thread.run_sync(make)
            self._trees[key] = tree
            return tree

        return self._trees.get(key) or await self._merging.run(key, work)

    def _merged(self, name: Digest, layers: Sequence[LayerIndex], make: Callable[[], Tree]) -> Tree:
        """A merged tree from the shelf, or made and put there."""
        file = self._shelf.find(merged.KIND, name)
        if file is not None:
            with file:
                kept = merged.decode(file.read(), layers)
            if kept is not None:
                return kept
        tree = make()
        with self._shelf.put(merged.KIND, name) as target:
            target.write(merged.encode(tree))
        return tree

    async def read(self, layer: Layer, member: Member, offset: int, size: int) -> bytes:
        """Bytes [offset, offset+size) of a file, shorter only at its end; holes are zeros."""
        size = max(0, min(size, member.size - offset))
        if len(member.extents) == 1 and member.extents[0].length == member.size:
            return await self._plain(layer, member.extents[0].plain + offset, size) if size else b""
        content = bytearray(size)
        for extent in member.extents:
            start, stop = max(offset, extent.offset), min(offset + size, extent.offset + extent.length)
            if start < stop:
                piece = await self._plain(layer, extent.plain + start - extent.offset, stop - start)
                content[start - offset : stop - offset] = piece
        return bytes(content)

    def hold(self, layer: Layer) -> None:
        """Somebody opened a file of the layer: what is kept of it stays until it is let go."""
        self.blobs.hold(layer.blob.digest)
        self._tars.hold(layer.blob.digest)

    def let_go(self, layer: Layer) -> None:
        """Somebody who opened a file of the layer closed it."""
        self.blobs.let_go(layer.blob.digest)
        self._tars.let_go(layer.blob.digest)

    def tend(self, idle: float) -> None:
        """Let go of what nobody has open or has read for `idle` seconds; note on disk that the rest is used."""
        self._tars.tend(idle)

    async def _plain(self, layer: Layer, start: int, size: int) -> bytes:
        """Bytes [start, start+size) of the plain tar."""
        spans = (await self.index(layer)).spans
        if spans is None:
            raise Malformed(f"nothing says where the bytes of layer {layer.blob.digest} are")
        kept = spans.compression == PLAIN_TAR
        reader = self._kept_reader if kept else self._reader
        try:
            return await reader.read(layer.blob, spans, start, size)
        except (IntegrityError, Malformed) as error:
            log.warning("layer %s is read as a whole again: %s", layer.blob.digest, error)
        # Bytes or spans are bad. Reading all of the blob finds out whether it is the blob's bytes; everything else is made anew.
        self._tars.forget(layer.blob.digest)
        index = await self._unpack(layer, keep_plain=kept)
        return await reader.read(layer.blob, index.spans or spans, start, size)

    async def _index(self, layer: Layer) -> LayerIndex:
        index = await trio.to_thread.run_sync(self._find_index, layer.blob.digest)
        if index is None:
            return await self._unpack(layer)
        self._indices[layer.blob.digest] = index
        return index

    def _find_index(self, digest: Digest) -> LayerIndex | None:
        file = self._shelf.find(INDEX, digest)
        if file is None:
            return None
        with file:
            return decode(file.read())

    async def _unpack(self, layer: Layer, *, keep_plain: bool = False) -> LayerIndex:
        if layer.blob.size > self._limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has {layer.blob.size} bytes, limits.layer_bytes allows {self._limits.layer_bytes}"
            )

        async def work() -> LayerIndex:
            unpacking = Unpacking(self.blobs, self._shelf, self._limits, layer, keep_plain=keep_plain)
            index = await trio.to_thread.run_sync(unpacking.run, limiter=self._threads)
            self._indices[layer.blob.digest] = index
            return index

        return await self._unpacking.run((layer.blob.digest, keep_plain), work)


def _name(digests: Sequence[Digest], markers: bool, alone: bool) -> Digest:
    """What names a merged tree: what it was made from."""
    return Digest.of(" ".join([*map(str, digests), str(markers), str(alone)]).encode())


class _Kept:
    """Plain tars in place of blobs, made where they are gone."""

    def __init__(self, tars: PlainTars, unpack: Callable[..., Awaitable[LayerIndex]]) -> None:
        self._tars = tars
        self._unpack = unpack

    async def read_blob(self, blob: Blob, offset: int, length: int) -> bytes:
        plain = await self._tars.find(blob.digest)
        if plain is None:
            await self._unpack(Layer(blob), keep_plain=True)
            plain = await self._tars.find(blob.digest)
        if plain is None:
            raise RegistryFailed(f"what was unpacked of layer {blob.digest} went from the cache at once")
        return await plain.read(offset, length)


async def _side_by_side(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Do the work for each number at once. The first error of ours is raised as itself, not in a group."""
    failed: list[OcifsError] = []

    async def one(number: int) -> None:
        try:
            await work(number)
        except OcifsError as error:
            failed.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    if failed:
        raise failed[0]
