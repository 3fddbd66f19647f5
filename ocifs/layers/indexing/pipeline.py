"""One pass over a whole layer, which indexes it.

    event loop       the Prefetcher reads the blob ahead
    worker thread    the Decompressor decompresses it and divides it into spans
    second thread    StreamDigests hashes the tar and its spans, read_tar lists the entries

`LayerIndexes` creates a pipeline for each pass, and calls `run` or `extract` once.

Rules:

- Nothing is cached before the whole layer was read: its digest is verified by the BlobReader with
  the last byte, its diff ID here.
- The uncompressed tar is cached only on request, or if the compression has no checkpoints.
- If the tar or the windows cannot be cached, the layer is listed nevertheless.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ocifs.concurrency import check_cancelled, in_thread, note_progress, ungrouped
from ocifs.content import BlobReader, DerivedCache
from ocifs.errors import IntegrityError
from ocifs.layers.derived import save
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.codec import encode
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.index.packed import EntryPacker
from ocifs.layers.indexing.decompress import Decompressor
from ocifs.layers.indexing.digests import StreamDigests
from ocifs.layers.indexing.layer import Layer, check_diff_id
from ocifs.layers.indexing.prefetcher import Prefetcher
from ocifs.layers.indexing.spool import Spool
from ocifs.layers.indexing.window_log import WindowLog
from ocifs.layers.indexing.worker import PipelineWorker
from ocifs.layers.spans.checkpoints import CheckpointBuilder
from ocifs.layers.spans.span import FROM_TAR
from ocifs.layers.spans.uncompressed import TAR_KIND
from ocifs.layers.tar.reader import read_tar
from ocifs.memory import trim_memory
from ocifs.settings import Limits

log = logging.getLogger("ocifs.layers")

T = TypeVar("T")

# Nearly all layers with these compressions have checkpoints, so their tars are not spooled. Few of
# the others have.
_WITH_CHECKPOINTS = ("gzip", "none")
_CHECK_INTERVAL = 0.5  # seconds between two checks for cancellation
# For any number of processors: each pass needs memory for its decoder's window and for pieces of
# the blob.
_PASSES = 2


@dataclass(frozen=True, slots=True)
class PassLimits:
    """Limits of concurrent passes: a number of threads, and one large decompression window."""

    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_PASSES))
    large_window: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def hold_large_window(self) -> Iterator[None]:
        """Wait, in a worker thread, until no other pass needs a large window.

        The other pass is bounded, so waiting for it counts as progress.
        """
        while not self.large_window.acquire(timeout=_CHECK_INTERVAL):
            check_cancelled()
            trio.from_thread.run_sync(note_progress)
        try:
            yield
        finally:
            self.large_window.release()


class IndexingPipeline:
    """One pass over a layer."""

    def __init__(
        self,
        blobs: BlobReader,
        derived: DerivedCache,
        limits: Limits,
        layer: Layer,
        shared: PassLimits,
    ) -> None:
        self._derived = derived
        self._limits = limits
        self._layer = layer
        self._threads = shared.threads
        self._prefetcher = Prefetcher(blobs, layer.blob)
        self._windows = WindowLog(derived, layer.blob.digest)
        self._checkpoints = CheckpointBuilder(self._windows.store)
        self._decompressor = Decompressor(
            self._prefetcher.take, limits, self._checkpoints, shared.hold_large_window
        )
        diff_id = layer.diff_id
        # A diff ID that cannot be computed is not compared. The tar then gets a SHA-256.
        is_known = diff_id is not None and diff_id.verifiable
        self._digests = StreamDigests(diff_id.algorithm if diff_id and is_known else "sha256")

    async def run(self, *, keep_tar: bool = False) -> LayerIndex:
        """Index the layer, and cache the index. `keep_tar`: cache the uncompressed tar as well.

        Raises Malformed, IntegrityError, LimitExceeded and the errors of reading the blob.
        """
        return await self._run(lambda: self._index(keep_tar=keep_tar))

    async def extract(self, start: int, length: int) -> bytes:
        """Return bytes [start, start+length) of the uncompressed tar, and cache nothing."""
        return await self._run(lambda: self._extract(start, start + length))

    async def _run(self, work: Callable[[], T]) -> T:
        # Before anything is read: an image can have more layers than there is memory for their
        # first pieces.
        async with self._threads:
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._prefetcher.run)
                    # A limiter of its own: the thread blocks on reads that need other worker
                    # threads.
                    result = await in_thread(work, limiter=trio.CapacityLimiter(1))
                    # The work may end before the blob does, as in `extract`.
                    nursery.cancel_scope.cancel()
            await in_thread(trim_memory)
        return result

    def _extract(self, start: int, stop: int) -> bytes:
        position, content = 0, bytearray()
        for piece in self._decompressor.pieces():
            content += piece[max(0, start - position) : max(0, stop - position)]
            position += len(piece)
            self._prefetcher.note_work()
            if position >= stop:
                return bytes(content)
        raise IntegrityError(f"layer {self._layer.blob.digest} is shorter than its index")

    def _index(self, *, keep_tar: bool) -> LayerIndex:
        packer = EntryPacker()
        digest = self._layer.blob.digest
        with Spool(self._derived, TAR_KIND, digest) as tar, self._windows.spool:
            with self._prefetcher.read_to_end_if_malformed():
                with PipelineWorker(
                    lambda pieces: read_tar(self._digests.hashed(pieces), self._limits, packer.add)
                ) as listing:
                    for piece in self._decompressor.pieces():
                        if keep_tar or self._decompressor.compression not in _WITH_CHECKPOINTS:
                            tar.write(piece)
                        # The listing has failed; its error is raised at the end of the block.
                        if not listing.put(piece):
                            break
                        self._prefetcher.note_work()
                spans = self._checkpoints.spans(self._digests.checksums)
                index = LayerIndex(
                    packer.entries(),
                    self._digests.diff_id,
                    listing.result,
                    self._decompressor.compression,
                    spans,
                )
                check_diff_id(self._layer, index)
            if keep_tar or spans.compression == FROM_TAR:
                tar.keep()
            save(self._derived, INDEX, digest, encode(index, self._windows.keep()))
        return index
