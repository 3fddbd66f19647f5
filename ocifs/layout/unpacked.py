"""Decompresses archives, once, into the cache.

The key of a decompressed archive is the version of the compressed file (file_range.py). It can be
evicted when no process reads it.

Everything blocks, except `track_progress`: callers are worker threads.

Rules that hold here:

- The limits are those of a layer: `limits.layer_bytes`, `layer_ratio`, `layer_window`.
- If the caller gives up, the thread ends at the next piece and leaves nothing in the cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio

from ocifs.concurrency import note_progress, ungrouped
from ocifs.content import DerivedCache
from ocifs.errors import DeadlineExceeded, LimitExceeded, Malformed, RegistryFailed
from ocifs.layers.indexing.decompress import Decompressor, sniff
from ocifs.layout.file_range import (
    Version,
    check_version,
    read_exactly,
    translate_errors,
    version_of,
)
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Limits

KIND = "archive.1"
"""The kind of derived data that is a decompressed archive."""

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called on the event loop with the name of a file, the number of processed bytes, and its size."""

_HEAD = 6  # bytes that identify a compression
_PULSE = 0.25  # seconds between two reports of progress


class Progress:
    """The progress of a worker thread, and its cancellation.

    The thread writes the numbers and the event loop reads them. The event loop calls `end`.
    """

    def __init__(self) -> None:
        self.name = ""
        self.done = 0
        self.total = 0
        self.steps = 0
        self._ended = threading.Event()

    def advance(self) -> None:
        """Record a step, in the thread. Raises DeadlineExceeded if the caller has given up."""
        self.steps += 1
        if self._ended.is_set():
            raise DeadlineExceeded("cancelled before it was complete")

    def end(self) -> None:
        """Stop the thread at its next step."""
        self._ended.set()


@asynccontextmanager
async def track_progress(on_progress: OnProgress | None) -> AsyncIterator[Progress]:
    """A Progress for a worker thread. It is reported to the waiting task every `_PULSE` seconds.

    The end of the block stops the thread.
    """
    progress = Progress()

    def report() -> None:
        note_progress()
        if on_progress is not None and progress.total:
            on_progress(progress.name, progress.done, progress.total)

    async def watch() -> None:
        reported = -1
        while True:
            if progress.steps != reported:
                reported = progress.steps
                report()
            await trio.sleep(_PULSE)

    try:
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                yield progress
                # `watch` reports every _PULSE seconds: the last steps are not reported yet.
                report()
                nursery.cancel_scope.cancel()
    finally:
        # If the caller was cancelled, its thread still runs, and must not fill the cache.
        progress.end()


def compression_of(descriptor: int, shown: str, offset: int = 0) -> str:
    """The compression, from the first bytes: `none`, `gzip`, `zstd`, `bzip2` or `xz`."""
    with translate_errors(shown):
        return sniff(os.pread(descriptor, _HEAD, offset))


def open_uncompressed(
    descriptor: int, shown: str, cache: DerivedCache, limits: Limits, progress: Progress
) -> int:
    """A descriptor of the uncompressed archive: `descriptor`, or one of a file in the cache.

    In the second case, `descriptor` is closed.
    """
    if compression_of(descriptor, shown) == "none":
        return descriptor
    try:
        with translate_errors(shown):
            version = version_of(os.fstat(descriptor))
        key = _key(version)
        cached = cache.find(KIND, key)
        if cached is None:
            _decompress(descriptor, shown, (cache, key, version), limits, progress)
            cached = cache.find(KIND, key)
        if cached is None:
            raise RegistryFailed(f"the decompressed {shown} was evicted immediately")
        # The duplicate remains valid if the file is evicted from the cache.
        with cached:
            return os.dup(cached.fileno())
    finally:
        os.close(descriptor)


def _key(version: Version) -> Digest:
    return Digest.of(" ".join(map(str, version)).encode())


def _decompress(
    descriptor: int,
    shown: str,
    target: tuple[DerivedCache, Digest, Version],
    limits: Limits,
    progress: Progress,
) -> None:
    cache, key, version = target
    # The third part of a version is the size (file_range.py).
    progress.name, progress.total = shown, version[2]

    def read_next() -> bytes:
        progress.advance()
        piece = read_exactly(
            descriptor, progress.done, min(MIB, progress.total - progress.done), shown
        )
        progress.done += len(piece)
        return piece

    try:
        with cache.put(KIND, key) as output:
            # A small input may decompress to many pieces: each of them can be cancelled.
            for piece in Decompressor(read_next, limits).pieces():
                progress.advance()
                output.write(piece)
            # A file that changed meanwhile must not be cached under its old version.
            check_version(descriptor, version, shown)
    except Malformed as error:
        raise Malformed(f"cannot decompress {shown}: {_about_archive(error)}") from None
    except LimitExceeded as error:
        raise LimitExceeded(f"cannot decompress {shown}: {_about_archive(error)}") from None


def _about_archive(error: Exception) -> str:
    """The message of a layer's decompressor, for an archive."""
    return str(error).replace("the layer", "the archive", 1)
