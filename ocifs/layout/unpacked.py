"""Compressed archives, unpacked once into the cache.

Kept by what identifies the file, and evictable once no process reads it.

Everything blocks, except `running`: callers are worker threads.

Rules that hold here:
- What is unpacked is bounded as a layer is: `limits.layer_bytes`, `layer_ratio`, `layer_window`.
- A thread whose caller has given up ends at its next piece, and leaves nothing in the cache.
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
"""The kind of an unpacked archive on the shelf."""

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called in the event loop: what is worked on, the bytes of it that are done, and all of them."""

_HEAD = 6  # bytes by which a compression is known
_PULSE = 0.25  # seconds between two looks at how far a thread has come


class Progress:
    """How far a thread has come, and whether it should go on.

    Shared by the thread and the event loop.
    """

    def __init__(self) -> None:
        self.name = ""
        self.done = 0
        self.total = 0
        self.steps = 0
        self._ended = threading.Event()

    def advance(self) -> None:
        """Something was done.

        Raises DeadlineExceeded in the thread when its caller has given up.
        """
        self.steps += 1
        if self._ended.is_set():
            raise DeadlineExceeded("the work was ended before it was done")

    def end(self) -> None:
        """Let the thread end at its next step."""
        self._ended.set()


@asynccontextmanager
async def running(on_progress: OnProgress | None) -> AsyncIterator[Progress]:
    """Progress for a thread, whose progress is reported to the waiting task.

    The thread is told to end when the block does.
    """
    work = Progress()

    def report() -> None:
        note_progress()
        if on_progress is not None and work.total:
            on_progress(work.name, work.done, work.total)

    async def watch() -> None:
        seen = -1
        while True:
            if work.steps != seen:
                seen = work.steps
                report()
            await trio.sleep(_PULSE)

    try:
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                yield work
                report()
                nursery.cancel_scope.cancel()
    finally:
        work.end()


def compression_of(descriptor: int, shown: str, offset: int = 0) -> str:
    """The compression that the first bytes show: `none`, `gzip`, `zstd`, `bzip2` or `xz`."""
    with translate_errors(shown):
        return sniff(os.pread(descriptor, _HEAD, offset))


def open_uncompressed(
    descriptor: int, shown: str, shelf: DerivedCache, limits: Limits, work: Progress
) -> int:
    """A descriptor of the uncompressed archive: `descriptor` itself, or the unpacked file in the
    cache, and then that is closed.
    """
    if compression_of(descriptor, shown) == "none":
        return descriptor
    try:
        with translate_errors(shown):
            version = version_of(os.fstat(descriptor))
        key = _key(version)
        kept = shelf.find(KIND, key)
        if kept is None:
            _unpack(descriptor, shown, (shelf, key, version), limits, work)
            kept = shelf.find(KIND, key)
        if kept is None:
            raise RegistryFailed(f"what was unpacked of {shown} left the cache at once")
        with kept:
            return os.dup(kept.fileno())
    finally:
        os.close(descriptor)


def _key(version: Version) -> Digest:
    return Digest.of(" ".join(map(str, version)).encode())


def _unpack(
    descriptor: int,
    shown: str,
    where: tuple[DerivedCache, Digest, Version],
    limits: Limits,
    work: Progress,
) -> None:
    shelf, key, version = where
    work.name, work.total = shown, version[2]

    def take() -> bytes:
        work.advance()
        piece = read_exactly(descriptor, work.done, min(MIB, work.total - work.done), shown)
        work.done += len(piece)
        return piece

    try:
        with shelf.put(KIND, key) as target:
            for piece in Decompressor(take, limits).pieces():
                work.advance()
                target.write(piece)
            check_version(descriptor, version, shown)
    except Malformed as error:
        raise Malformed(f"{shown} cannot be unpacked: {_about_archive(error)}") from None
    except LimitExceeded as error:
        raise LimitExceeded(f"{shown} cannot be unpacked: {_about_archive(error)}") from None


def _about_archive(error: Exception) -> str:
    """The words of the decompressor, which is that of layers."""
    return str(error).replace("the layer", "the archive", 1)
