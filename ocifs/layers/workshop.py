"""Where layers become trees: each is streamed once, unpacked beside the event loop, and what was made of it is kept under its digest.

What is kept of a layer: its plain tar (`layer-plain.1`), from which files are read, and its index (`layer-index.1`), from which they are
listed. A mount that finds the index lists at once; the plain tar is made again when a file is read and it is gone.

Rules that hold here: one unpacking of a layer at a time, whoever asks; nothing of a layer is served before all of it was read, so its
digest (by the BlobReader, with the last byte) and its diff ID (here) were verified; unpacking happens in threads of its own number,
since those threads wait for reads that need threads too.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

import trio

from ocifs.concurrency import SingleFlight, note_progress
from ocifs.content import Blob, BlobReader, Shelf
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, OcifsError, RegistryFailed
from ocifs.layers.codec import KIND as INDEX
from ocifs.layers.codec import decode, encode
from ocifs.layers.inflate import Inflater
from ocifs.layers.member import LayerIndex, Member
from ocifs.layers.overlay import Tree, merge
from ocifs.layers.tar import read_tar
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Limits

PLAIN = "layer-plain.1"
_PIECE = 2 * MIB  # read of a blob at a time
_OPEN = 128  # plain tars that are open at a time


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to be unpacked: its blob, whose size must be known, and the digest of its plain tar where a config names it."""

    blob: Blob
    diff_id: Digest | None = None


class Workshop:
    """Makes trees of the layers that a BlobReader reads, and keeps what it made on a Shelf."""

    def __init__(self, blobs: BlobReader, shelf: Shelf, nursery: trio.Nursery, limits: Limits) -> None:
        self.blobs = blobs
        self._shelf = shelf
        self._limits = limits
        self._indexing: SingleFlight[Digest, LayerIndex] = SingleFlight(nursery)
        self._unpacking: SingleFlight[Digest, LayerIndex] = SingleFlight(nursery)
        self._merging: SingleFlight[tuple[object, ...], Tree] = SingleFlight(nursery)
        self._indices: WeakValueDictionary[Digest, LayerIndex] = WeakValueDictionary()
        self._trees: WeakValueDictionary[tuple[object, ...], Tree] = WeakValueDictionary()
        self._plain: dict[Digest, _Plain] = {}
        self._held: Counter[Digest] = Counter()
        self._threads = trio.CapacityLimiter(max(2, os.cpu_count() or 2))

    async def index(self, layer: Layer) -> LayerIndex:
        """The entries of a layer. Raises Malformed, IntegrityError, LimitExceeded and whatever reading the blob raises."""
        index = self._indices.get(layer.blob.digest)
        if index is None:
            index = await self._indexing.run(layer.blob.digest, lambda: self._index(layer))
        _check(layer, index)
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
                return merge(found, self._limits, markers=markers, alone=alone)

            tree = await trio.to_thread.run_sync(make)
            self._trees[key] = tree
            return tree

        return self._trees.get(key) or await self._merging.run(key, work)

    async def read(self, layer: Layer, member: Member, offset: int, size: int) -> bytes:
        """Bytes [offset, offset+size) of a file, shorter only at its end; holes are zeros."""
        size = max(0, min(size, member.size - offset))
        if not size:
            return b""
        plain = self._plain.get(layer.blob.digest) or await self._open(layer)
        plain.last_used = trio.current_time()
        return await trio.to_thread.run_sync(plain.read, member, offset, size)

    def hold(self, layer: Layer) -> None:
        """Somebody opened a file of the layer: what is unpacked of it stays until it is let go."""
        self._held[layer.blob.digest] += 1

    def let_go(self, layer: Layer) -> None:
        """Somebody who opened a file of the layer closed it."""
        self._held[layer.blob.digest] -= 1
        if self._held[layer.blob.digest] <= 0:
            del self._held[layer.blob.digest]

    def tend(self, idle: float) -> None:
        """Let go of plain tars that nobody has open or has read for `idle` seconds; note on disk that the others are used."""
        now = trio.current_time()
        for digest, plain in list(self._plain.items()):
            if digest in self._held or now - plain.last_used < idle:
                plain.note_use()
            else:
                del self._plain[digest]

    async def _open(self, layer: Layer) -> _Plain:
        digest = layer.blob.digest
        plain = await trio.to_thread.run_sync(self._find_plain, digest)
        if plain is None:
            await self._unpack(layer)
            plain = await trio.to_thread.run_sync(self._find_plain, digest)
        if plain is None:
            raise RegistryFailed(f"what was unpacked of layer {digest} went from the cache at once")
        self._plain[digest] = plain
        while len(self._plain) > _OPEN:  # readers still hold those that they read from
            del self._plain[next(iter(self._plain))]
        return plain

    def _find_plain(self, digest: Digest) -> _Plain | None:
        file = self._shelf.find(PLAIN, digest)
        if file is None:
            return None
        with file:
            return _Plain(os.dup(file.fileno()))

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

    async def _unpack(self, layer: Layer) -> LayerIndex:
        if layer.blob.size > self._limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has {layer.blob.size} bytes, limits.layer_bytes allows {self._limits.layer_bytes}"
            )

        async def work() -> LayerIndex:
            index = await trio.to_thread.run_sync(self._work, layer, limiter=self._threads)
            self._indices[layer.blob.digest] = index
            return index

        return await self._unpacking.run(layer.blob.digest, work)

    def _work(self, layer: Layer) -> LayerIndex:
        """The whole unpacking, in a worker thread: read, inflate, hash, spool, list."""
        hasher = layer.diff_id.hasher() if layer.diff_id is not None and layer.diff_id.verifiable else hashlib.sha256()
        algorithm = layer.diff_id.algorithm if layer.diff_id is not None and layer.diff_id.verifiable else "sha256"
        members: list[Member] = []
        feed = _Feed(self.blobs, layer.blob)
        inflater = Inflater(feed.take, self._limits)
        with feed.judged(), self._shelf.put(PLAIN, layer.blob.digest) as spool:

            def spooled(piece: bytes) -> bytes:
                hasher.update(piece)
                spool.write(piece)
                return piece

            size = read_tar(map(spooled, inflater.pieces()), self._limits, members.append)
            index = LayerIndex(tuple(members), Digest(algorithm, hasher.hexdigest()), size, inflater.compression)
            _check(layer, index)
        with self._shelf.put(INDEX, layer.blob.digest) as file:
            file.write(encode(index))
        return index


class _Feed:
    """A blob read piece by piece from a worker thread."""

    def __init__(self, blobs: BlobReader, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._position = 0

    def take(self) -> bytes:
        if self._position >= self._blob.size:
            return b""
        piece = trio.from_thread.run(self._read)
        if not piece:
            raise IntegrityError(f"{self._blob.digest} ends before the size that its descriptor says")
        self._position += len(piece)
        return piece

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Read a blob whose content makes no sense to its end: one that came damaged fails by its digest then, and is dropped."""
        try:
            yield
        except Malformed:
            while self.take():
                pass
            raise

    async def _read(self) -> bytes:
        note_progress()  # what was read before is unpacked
        piece = await self._blobs.read_blob(self._blob, self._position, _PIECE)
        note_progress()
        return piece


class _Plain:
    """An open plain tar. It is closed when nobody reads from it any more."""

    __slots__ = ("_descriptor", "last_used")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.last_used = 0.0

    def note_use(self) -> None:
        """Say on disk that it is used, for whoever looks for what to evict."""
        with suppress(OSError):
            os.utime(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, member: Member, offset: int, size: int) -> bytes:
        if len(member.extents) == 1 and member.extents[0].length == member.size:
            return self._exactly(member.extents[0].plain + offset, size)
        content = bytearray(size)
        for extent in member.extents:
            start, stop = max(offset, extent.offset), min(offset + size, extent.offset + extent.length)
            if start < stop:
                piece = self._exactly(extent.plain + start - extent.offset, stop - start)
                content[start - offset : stop - offset] = piece
        return bytes(content)

    def _exactly(self, start: int, size: int) -> bytes:
        try:
            piece = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise RegistryFailed(f"the cache cannot be read: {error.strerror}") from None
        if len(piece) != size:
            raise RegistryFailed("an unpacked layer in the cache is shorter than it was")
        return piece


def _check(layer: Layer, index: LayerIndex) -> None:
    """Compare with the diff ID that the config names, where both are of one algorithm."""
    wanted = layer.diff_id
    if wanted is not None and wanted.algorithm == index.diff_id.algorithm and wanted != index.diff_id:
        raise IntegrityError(f"layer {layer.blob.digest} unpacks to {index.diff_id}, its config says {wanted}")


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
