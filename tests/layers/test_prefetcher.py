"""The prefetcher: all pieces in order, errors at the right piece, and no thread that hangs."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from ocifs.concurrency import ungrouped
from ocifs.content import Blob
from ocifs.errors import IntegrityError, Malformed, Unreachable
from ocifs.layers.indexing.prefetcher import Prefetcher
from ocifs.oci.digest import Digest
from ocifs.settings import MIB

CONTENT = bytes(range(256)) * (36 * MIB // 256)
BLOB = Blob("r", Digest.of(CONTENT), len(CONTENT))


class Source:
    """`there` bytes of a blob; then `error`, nothing, or no answer (`stuck`).

    `asked`: the end of the last request.
    """

    def __init__(
        self, there: int = len(CONTENT), error: Exception | None = None, *, stuck: bool = False
    ) -> None:
        self._there = there
        self._error = error
        self._stuck = stuck
        self.asked = 0

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked = max(self.asked, offset + length)
        if offset < self._there:
            return CONTENT[offset : offset + length]
        if self._error is not None:
            raise self._error
        if self._stuck:
            await trio.sleep_forever()
        return b""

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return len(CONTENT)

    def acquire(self, digest: Digest) -> None: ...

    def release(self, digest: Digest) -> None: ...


def taken(prefetcher: Prefetcher) -> bytes:
    pieces = []
    while piece := prefetcher.take():
        pieces.append(piece)
    return b"".join(pieces)


async def fed(source: Source) -> bytes:
    prefetcher = Prefetcher(source, BLOB)
    with ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prefetcher.run)
            return await trio.to_thread.run_sync(taken, prefetcher)


async def test_all_of_it_comes_in_order() -> None:
    assert await fed(Source()) == CONTENT


async def test_little_is_read_ahead_of_who_takes_nothing() -> None:
    source = Source()
    prefetcher = Prefetcher(source, BLOB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prefetcher.run)
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < source.asked <= 8 * MIB
        await trio.to_thread.run_sync(prefetcher.take)
        await trio.testing.wait_all_tasks_blocked()
        assert source.asked <= 10 * MIB
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("there", [0, 4 * MIB, 34 * MIB])
async def test_an_error_comes_where_the_piece_would_be_and_comes_again(there: int) -> None:
    prefetcher = Prefetcher(Source(there, Unreachable("the line is cut")), BLOB)

    def take_twice() -> None:
        for _ in range(2):
            with pytest.raises(Unreachable, match="the line is cut"):
                taken(prefetcher)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prefetcher.run)
        await trio.to_thread.run_sync(take_twice)


async def test_a_blob_that_ends_too_soon_is_an_error() -> None:
    with pytest.raises(IntegrityError, match="ends before the size"):
        await fed(Source(4 * MIB))


async def test_what_makes_no_sense_is_taken_to_its_end_which_may_be_the_better_error() -> None:
    prefetcher = Prefetcher(Source(4 * MIB, Unreachable("the line is cut")), BLOB)

    def judge() -> None:
        with prefetcher.read_to_end_if_malformed():
            raise Malformed("no tar")

    with pytest.raises(Unreachable, match="the line is cut"), ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prefetcher.run)
            await trio.to_thread.run_sync(judge)


async def test_a_thread_that_waits_ends_with_who_waits_for_it() -> None:
    prefetcher = Prefetcher(Source(2 * MIB, stuck=True), BLOB)
    waits = threading.Event()

    def take() -> None:
        prefetcher.take()
        waits.set()
        prefetcher.take()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prefetcher.run)
            nursery.start_soon(trio.to_thread.run_sync, take)
            await trio.to_thread.run_sync(waits.wait)
            nursery.cancel_scope.cancel()
