"""Reads that are divided into ranges over several connections, over sources that fail."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.content import Blob, BlobStream
from ocifs.errors import IntegrityError, OcifsError, RateLimited, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import KIB, MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.bulk import FIRST_REQUEST, PER_BLOB
from ocifs.store.blobs.cached import CachedBlobs
from tests.store.source import Fault, MemorySource, broken
from tests.store.test_blobs import caching

SIZE = 17 * MIB + 12_345
CONTENT = random.Random(3).randbytes(SIZE)
OTHER = random.Random(4).randbytes(SIZE)
CONNECTIONS = 16


def source_of(*faults: Fault, others: int = 0) -> tuple[MemorySource, Blob]:
    source = MemorySource(piece=100_000, others=others)
    source.faults.extend(faults)
    return source, source.put(CONTENT)


@asynccontextmanager
async def parallel(
    source: MemorySource, directory: Path, *, verify_full: bool = False
) -> AsyncIterator[CachedBlobs]:
    """A cache for a host that an earlier blob has shown to be faster with many connections."""
    async with caching(source, directory, verify_full=verify_full) as blobs:
        count = blobs._fetches._bulk.count
        count.limit, count.pace = PER_BLOB, 80e6
        yield blobs


async def read_all(blobs: CachedBlobs, blob: Blob, piece: int = MIB) -> bytes:
    """Read a blob in order, as a caller that wants all of it."""
    pieces = [
        await blobs.read_blob(blob, offset, piece, blob.size)
        for offset in range(0, blob.size, piece)
    ]
    return b"".join(pieces)


def assert_divided_once(source: MemorySource) -> None:
    """The requested ranges are those of a partition of the blob."""
    spans = sorted(source.opened)
    assert spans[0][0] == 0
    assert spans[-1][1] == SIZE
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    assert sum(source.served) == SIZE


async def test_every_byte_comes_once_over_several_connections(tmp_path: Path) -> None:
    source, blob = source_of()
    async with parallel(source, tmp_path) as blobs:
        assert await read_all(blobs, blob) == CONTENT
    assert source.most_open == PER_BLOB
    assert_divided_once(source)


async def test_a_sequential_reader_who_announces_nothing_gets_several_as_well(
    tmp_path: Path,
) -> None:
    source, blob = source_of()
    async with parallel(source, tmp_path) as blobs:
        pieces = [
            await blobs.read_blob(blob, offset, 128 * KIB) for offset in range(0, SIZE, 128 * KIB)
        ]
    assert b"".join(pieces) == CONTENT
    assert 2 <= source.most_open <= PER_BLOB
    assert_divided_once(source)


async def test_a_host_of_unknown_pace_gets_one_short_request_first(tmp_path: Path) -> None:
    source, blob = source_of()
    source.gate = trio.Event()
    async with caching(source, tmp_path) as blobs, trio.open_nursery() as nursery:
        nursery.start_soon(read_all, blobs, blob)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert source.opened == [(0, FIRST_REQUEST)]
        source.gate.set()
    assert sum(source.served) == SIZE


async def test_a_whole_blob_that_must_be_verified_first_is_divided(tmp_path: Path) -> None:
    source, blob = source_of()
    async with parallel(source, tmp_path, verify_full=True) as blobs:
        assert await blobs.read_blob(blob, SIZE - 10, 10) == CONTENT[-10:]
    assert source.most_open >= 2
    assert_divided_once(source)


async def test_a_host_that_limits_requests_gets_one_at_a_time(tmp_path: Path) -> None:
    source, blob = source_of()
    source.strained = True
    async with parallel(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 0, 10)
        source.opened.clear()
        source.most_open = 0
        assert await read_all(blobs, blob) == CONTENT
    # As before ranges were divided: the next window may be requested ahead.
    assert source.most_open <= 2


async def test_a_refusal_is_not_repeated_by_every_connection(tmp_path: Path) -> None:
    source, blob = source_of()
    source.always = Fault(RateLimited("429", retry_after=30.0))
    async with parallel(source, tmp_path) as blobs:
        with pytest.raises(RateLimited):
            await read_all(blobs, blob)
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(source.opened) <= PER_BLOB


@dataclass
class GatedSource(MemorySource):
    """Large ranges wait, as over a slow line, until `gate` is set. Small ones do not."""

    large: int = 0

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        if stop - start >= MIB:
            self.large += 1
            assert self.gate is not None
            await self.gate.wait()
        gate, self.gate = self.gate, None
        opened = super().open_blob(blob, start, stop)
        async with opened as stream:
            self.gate = gate
            yield stream


async def test_large_transfers_leave_connections_for_small_ones(tmp_path: Path) -> None:
    source = GatedSource(gate=trio.Event())
    blobs_of_readers = [source.put(CONTENT[number:]) for number in range(20)]
    blob = source.put(OTHER)
    async with parallel(source, tmp_path) as blobs, trio.open_nursery() as nursery:
        for one in blobs_of_readers:
            nursery.start_soon(read_all, blobs, one)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert 1 < source.large <= CONNECTIONS * 3 // 4
        # All of these are answered while the large transfers have no byte yet.
        for offset in range(0, SIZE, 4 * MIB):
            assert await blobs.read_blob(blob, offset, 10) == OTHER[offset : offset + 10]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", [0, 1, 4, 7])
async def test_a_range_that_is_answered_with_the_whole_blob(tmp_path: Path, number: int) -> None:
    source, blob = source_of(*[Fault()] * number, Fault(from_zero=True))
    async with parallel(source, tmp_path) as blobs:
        assert await read_all(blobs, blob) == CONTENT
    assert sum(source.served) <= 2 * SIZE


async def test_a_server_without_ranges_sends_the_blob_once(tmp_path: Path) -> None:
    source, blob = source_of()
    source.always = Fault(from_zero=True)
    async with parallel(source, tmp_path) as blobs:
        assert await read_all(blobs, blob) == CONTENT
    # Other ranges that were requested meanwhile are closed when their answer begins.
    assert sum(source.served) == SIZE


async def test_a_server_without_ranges_that_loses_connections(tmp_path: Path) -> None:
    source, blob = source_of(*[Fault(Unreachable("lost"), 9 * MIB, from_zero=True)] * 2)
    source.always = Fault(from_zero=True)
    async with parallel(source, tmp_path) as blobs:
        assert await read_all(blobs, blob) == CONTENT


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize(
    "fault",
    [
        broken(0),
        broken(BLOCK + 5),
        Fault(after=2 * BLOCK),
        Fault(extra=b"more than was requested"),
        Fault(total=lambda size: None),
    ],
)
async def test_a_range_that_ends_early_or_late_is_completed(
    tmp_path: Path, fault: Fault, number: int
) -> None:
    source, blob = source_of(*[Fault()] * number, fault)
    async with parallel(source, tmp_path) as blobs:
        assert await read_all(blobs, blob) == CONTENT
    assert sum(source.served) <= SIZE + 2 * BLOCK + 100


@dataclass
class MirrorSource(MemorySource):
    """Only the first of two endpoints has faults."""

    def report_corrupt(self, digest: Digest) -> bool:
        self.faults.clear()
        return super().report_corrupt(digest)


@pytest.mark.parametrize(
    "fault", [Fault(total=lambda size: size + 1), Fault(content=lambda data: OTHER)]
)
@pytest.mark.parametrize("count", [1, 4])
async def test_wrong_content_in_some_ranges_is_fetched_elsewhere(
    tmp_path: Path, fault: Fault, count: int
) -> None:
    source = MirrorSource(piece=100_000, others=1)
    source.faults.extend([Fault(), *[fault] * count])
    blob = source.put(CONTENT)
    async with parallel(source, tmp_path, verify_full=True) as blobs:
        assert await blobs.read_blob(blob, 0, SIZE, SIZE) == CONTENT
    assert len(source.corrupt) == 1


async def test_wrong_content_in_one_range_is_never_served_to_the_end(tmp_path: Path) -> None:
    source, blob = source_of(Fault(), Fault(), Fault(content=lambda data: OTHER))
    async with parallel(source, tmp_path) as blobs:
        with pytest.raises(IntegrityError):
            await read_all(blobs, blob)


async def test_after_a_crash_only_missing_blocks_are_fetched(tmp_path: Path) -> None:
    source, blob = source_of()
    async with parallel(source, tmp_path) as blobs:
        source.hangs_after = SIZE // 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, blobs, blob)
            while sum(source.served) < SIZE // 2:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    assert source.most_open == PER_BLOB
    source.hangs_after = None
    source.opened.clear()
    source.served.clear()
    async with parallel(source, tmp_path) as blobs:
        opened = await blobs._opened.open(blob)
        kept = [opened.blocks.has(block) for block in range(opened.blocks.count)]
        assert await read_all(blobs, blob) == CONTENT
    for start, stop in source.opened:
        assert not any(kept[start // BLOCK : -(-stop // BLOCK)])
    assert 0 < sum(kept) < len(kept)
    missing = sum(not is_cached for is_cached in kept)
    assert sum(source.served) <= missing * BLOCK


FAULTS = st.sampled_from(
    [
        Fault(),
        Fault(from_zero=True),
        broken(0),
        broken(3 * BLOCK + 1),
        Fault(after=5 * BLOCK),
        Fault(extra=b"x" * 100),
        Fault(total=lambda size: None),
        Fault(total=lambda size: size - 1),
        Fault(content=lambda data: OTHER),
        Fault(Unreachable("refused")),
        Fault(RateLimited("429")),
    ]
)


@given(
    st.lists(FAULTS, max_size=12),
    st.lists(st.tuples(st.integers(0, SIZE), st.integers(1, 6 * MIB)), max_size=6),
    st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_whatever_fails_a_read_is_right_or_an_error(
    faults: list[Fault], reads: list[tuple[int, int]], verify_full: bool
) -> None:
    """Bytes of a blob that was never completed may be wrong; after its end they are not."""

    async def scenario(directory: Path) -> None:
        source, blob = source_of(*faults)
        async with parallel(source, directory, verify_full=verify_full) as blobs:
            for offset, length in reads:
                try:
                    content = await blobs.read_blob(blob, offset, length)
                except OcifsError:
                    continue
                right = content == CONTENT[offset : offset + length]
                assert right or (not verify_full and "content" in repr(faults))
            for _ in range(len(faults) + 2):
                try:
                    content = await read_all(blobs, blob)
                except OcifsError:
                    continue
                assert content == CONTENT
                break
            else:
                raise AssertionError("the source has no faults left, and the read fails")

    with tempfile.TemporaryDirectory() as directory:
        trio.run(scenario, Path(directory))
