"""The one pass over a whole layer: fetched ahead, inflated and cut into spans in a worker thread,
hashed and listed in another beside it.

Rules that hold here: nothing is kept of a layer before all of it was read, so its digest (by the
BlobReader, with the last byte) and its diff ID (here) were verified; the plain tar is kept only
where the compression cannot be entered in the middle.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, TypeVar

import trio

from ocifs.concurrency import check_cancelled, in_thread, note_progress, ungrouped
from ocifs.content import Blob, BlobReader, DerivedCache
from ocifs.errors import IntegrityError, OcifsError
from ocifs.layers.derived import save
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.codec import encode
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.index.packed import EntryPacker
from ocifs.layers.indexing.decompress import Decompressor
from ocifs.layers.indexing.digests import StreamDigests
from ocifs.layers.indexing.prefetcher import Prefetcher
from ocifs.layers.indexing.worker import PipelineWorker
from ocifs.layers.spans.checkpoints import CheckpointBuilder
from ocifs.layers.spans.span import FROM_TAR
from ocifs.layers.spans.uncompressed import PLAIN
from ocifs.layers.tar.reader import read_tar
from ocifs.layers.toc.formats import Promise
from ocifs.memory import trim_memory
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

# Nearly always these can be entered in the middle, so their plain tars are not kept at once; of the
# others, few can.
_ENTERED = ("gzip", "none")

log = logging.getLogger("ocifs.layers")

T = TypeVar("T")


_LOOK = 0.5  # seconds between two looks for cancellation


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to be unpacked: its blob, whose size must be known, and the digest of its plain tar
    where a config names it.

    `promise`: the table of contents by which it is to be listed instead.
    """

    blob: Blob
    diff_id: Digest | None = None
    promise: Promise | None = None

    @property
    def key(self) -> Digest:
        """What an index of it is known by: entries of one key are numbered in one way."""
        return self.blob.digest if self.promise is None else self.promise.key(self.blob)


class IndexingPipeline:
    """The unpacking of one layer. `keep_plain`: keep the plain tar, whatever the compression."""

    def __init__(
        self,
        blobs: BlobReader,
        shelf: DerivedCache,
        limits: Limits,
        layer: Layer,
        *,
        keep_tar: bool = False,
    ) -> None:
        self._shelf = shelf
        self._limits = limits
        self._layer = layer
        self._keep_plain = keep_tar
        self._feed = Prefetcher(blobs, layer.blob)
        self._cutter = CheckpointBuilder()
        self._inflater = Decompressor(self._feed.take, limits, self._cutter)
        wanted = layer.diff_id
        self._sums = StreamDigests(
            wanted.algorithm if wanted is not None and wanted.verifiable else "sha256"
        )

    async def run(self, threads: trio.CapacityLimiter, large: threading.Lock) -> LayerIndex:
        """Do it, and keep what was made. `large`: held while the decoder needs much memory.

        Raises Malformed, IntegrityError, LimitExceeded and whatever reading the blob raises.
        """
        return await self._fed(self._pass, threads, large)

    async def part(
        self, start: int, length: int, threads: trio.CapacityLimiter, large: threading.Lock
    ) -> bytes:
        """Bytes [start, start+length) of the plain tar, none of which is kept: for a disk that
        takes no plain tar.
        """
        return await self._fed(lambda: self._only(start, start + length), threads, large)

    async def _fed(
        self, work: Callable[[], T], threads: trio.CapacityLimiter, large: threading.Lock
    ) -> T:
        # Before anything is read: an image can have more layers than there is memory for their
        # first pieces.
        async with threads:
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._feed.bring)
                    self._inflater.alone = functools.partial(self._exclusively, large)
                    result = await in_thread(work, limiter=trio.CapacityLimiter(1))
                    nursery.cancel_scope.cancel()
            await in_thread(trim_memory)
        return result

    def _only(self, start: int, stop: int) -> bytes:
        position, wanted = 0, bytearray()
        for piece in self._inflater.pieces():
            wanted += piece[max(0, start - position) : max(0, stop - position)]
            position += len(piece)
            self._feed.used()
            if position >= stop:
                return bytes(wanted)
        raise IntegrityError(f"layer {self._layer.blob.digest} is shorter than its index")

    @contextmanager
    def _exclusively(self, large: threading.Lock) -> Iterator[None]:
        """Wait, in the worker thread, until no other unpacking needs much memory.

        That one has bounds, so there is progress.
        """
        while not large.acquire(timeout=_LOOK):
            check_cancelled()
            trio.from_thread.run_sync(note_progress)
        try:
            yield
        finally:
            large.release()

    def _pass(self) -> LayerIndex:
        packer = EntryPacker()
        digest = self._layer.blob.digest
        with _TarSpool(self._shelf, digest) as spool:
            with self._feed.judged():
                with PipelineWorker(
                    lambda pieces: read_tar(self._sums.taken(pieces), self._limits, packer.add)
                ) as listing:
                    for piece in self._spooled(spool):
                        if not listing.put(piece):
                            break
                        self._feed.used()
                spans = self._cutter.spans(self._sums.spans)
                index = LayerIndex(
                    packer.entries(),
                    self._sums.diff_id,
                    listing.result,
                    self._inflater.compression,
                    spans,
                )
                check(self._layer, index)
            if self._keep_plain or spans.compression == FROM_TAR:
                spool.keep()
        save(self._shelf, INDEX, digest, encode(index))
        return index

    def _spooled(self, spool: _TarSpool) -> Iterator[bytes]:
        for piece in self._inflater.pieces():
            if self._keep_plain or self._inflater.compression not in _ENTERED:
                spool.write(piece)
            yield piece


class _TarSpool:
    """A plain tar that may turn out not to be needed: it begins with its first byte, and is dropped
    unless it is kept.
    """

    def __init__(self, shelf: DerivedCache, digest: Digest) -> None:
        self._shelf = shelf
        self._digest = digest
        self._put: AbstractContextManager[BinaryIO] | None = None
        self._file: BinaryIO | None = None
        self._failed = False

    def __enter__(self) -> _TarSpool:
        return self

    def write(self, piece: bytes) -> None:
        if self._failed:
            return
        try:
            if self._file is None:
                put = self._shelf.put(PLAIN, self._digest)
                self._file = put.__enter__()
                self._put = put
            self._file.write(piece)
        except (OSError, OcifsError) as error:
            self._fail(error)

    def keep(self) -> None:
        """Put it in its place."""
        put, self._put = self._put, None
        try:
            if put is not None:
                put.__exit__(None, None, None)
        except (OSError, OcifsError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The layer is listed all the same; what is read of it is unpacked once more."""
        self._failed = True
        log.warning("cannot keep the unpacked layer %s in the cache: %s", self._digest, error)
        put, self._put = self._put, None
        if put is not None:
            with suppress(OSError, OcifsError, _SpoolDiscarded):
                put.__exit__(_SpoolDiscarded, _SpoolDiscarded(), None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        put, self._put = self._put, None
        if put is not None:
            dropped = error or _SpoolDiscarded()
            put.__exit__(type(dropped), dropped, trace)


class _SpoolDiscarded(Exception):
    """The plain tar is not needed."""


def check(layer: Layer, index: LayerIndex) -> None:
    """Compare with the diff ID that the config names, where both are of one algorithm.

    Raises IntegrityError.
    """
    wanted = layer.diff_id
    if (
        wanted is not None
        and index.diff_id is not None
        and wanted.algorithm == index.diff_id.algorithm
        and wanted != index.diff_id
    ):
        raise IntegrityError(
            f"layer {layer.blob.digest} unpacks to {index.diff_id}, its config says {wanted}"
        )
