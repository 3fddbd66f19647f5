"""Several processes with one cache: each byte is fetched once, also if a process dies or stalls.

Sessions with files of their own take the part of processes, since locks belong to open files.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import multiprocessing.synchronize
import os
import random
import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.oci.digest import Digest
from ocifs.settings import Timing
from ocifs.store.blobs.blockmap import BLOCK, find_map
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.files import open_whole
from ocifs.store.disk import Disk
from tests.store.source import MemorySource
from tests.store.test_blobs import caching, placed

SIZE = 40 * BLOCK + 77
CONTENT = random.Random(5).randbytes(SIZE)
DIGEST = Digest.of(CONTENT)


async def test_many_sessions_that_read_at_once_fetch_each_byte_once(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with (
        caching(source, tmp_path) as a,
        caching(source, tmp_path) as b,
        caching(source, tmp_path) as c,
    ):
        async with trio.open_nursery() as readers:

            async def read(number: int) -> None:
                for offset in range(0, SIZE, 50_000):
                    place = (offset + number * 7 * BLOCK) % SIZE
                    assert (
                        await (a, b, c)[number % 3].read_blob(blob, place, 50_000)
                        == CONTENT[place : place + 50_000]
                    )

            for number in range(12):
                readers.start_soon(read, number)
    assert sum(source.served) == SIZE


async def test_a_session_sees_what_another_brings_while_it_brings_it(tmp_path: Path) -> None:
    source = MemorySource(gate=trio.Event())
    blob = source.put(CONTENT)
    got = []
    async with caching(source, tmp_path) as one, caching(source, tmp_path) as two:
        async with trio.open_nursery() as readers:

            async def read() -> None:
                got.append(await two.read_blob(blob, BLOCK, 10))

            readers.start_soon(one.read_blob, blob, 0, 10)
            while not source.opened:
                await trio.lowlevel.checkpoint()
            readers.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert not got
            source.gate.set()
    assert got == [CONTENT[BLOCK : BLOCK + 10]]
    assert len(source.opened) == 1


async def test_what_another_process_holds_and_does_not_bring_is_fetched_all_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    tmp_path.chmod(0o700)
    other = BlobBlocks(Disk(tmp_path), DIGEST, SIZE)
    assert other.map.lock(0, other.count) == other.count
    async with caching(source, tmp_path) as blobs:
        began = trio.current_time()
        assert await blobs.read_blob(blob, 3 * BLOCK, 10) == CONTENT[3 * BLOCK : 3 * BLOCK + 10]
        assert trio.current_time() - began < 30
    other.close()


async def test_a_whole_that_another_session_verified_is_not_hashed_again(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as one, caching(source, tmp_path) as two:
        await two.read_blob(blob, 0, 10)
        assert await one.read_blob(blob, 0, SIZE) == CONTENT
        assert await two.read_blob(blob, 0, SIZE) == CONTENT
        partial = two._opened._blobs[blob.digest].blocks
        assert partial is not None
        assert partial._hash.hashed < SIZE
    async with caching(source, tmp_path) as later:
        assert await later.read_blob(blob, 0, SIZE) == CONTENT
        partial = later._opened._blobs[blob.digest].blocks
        assert partial is not None
        assert partial._hash.hashed == 0
    assert sum(source.served) == SIZE


def hold_and_wait(directory: str, ready: multiprocessing.synchronize.Event) -> None:
    partial = BlobBlocks(Disk(Path(directory)), DIGEST, SIZE)
    partial.map.lock(0, partial.count)
    partial.write(0, [CONTENT[: 2 * BLOCK]])
    ready.set()
    signal.pause()


def test_locks_and_nothing_else_go_with_a_process_that_is_killed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_and_wait, args=(str(tmp_path), ready))
    process.start()
    try:
        assert ready.wait(20)
        mine = BlobBlocks(Disk(tmp_path), DIGEST, SIZE)
        assert mine.map.lock(0, mine.count) == 0
        assert mine.map.held(5, 6) == (0, mine.count)
    finally:
        process.kill()
        process.join(10)
    assert mine.map.held(5, 6) is None
    assert mine.map.lock(0, mine.count) == mine.count
    assert [mine.has(block) for block in range(3)] == [True, True, False]
    mine.check(0, 2)
    assert mine.is_trusted(0, 2)
    mine.close()


def test_a_lock_takes_what_is_free(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    one, two = (BlobBlocks(Disk(tmp_path), DIGEST, SIZE) for _ in range(2))
    assert one.map.lock(10, 20) == 20
    assert two.map.lock(5, 15) == 10
    assert two.map.lock(12, 30) == 12
    assert two.map.lock(20, 30) == 30
    one.map.unlock(10, 10)
    assert two.map.lock(10, 20) == 10
    one.map.unlock(15, 20)
    assert two.map.lock(15, 20) == 20
    one.close()
    assert two.map.lock(10, 15) == 15
    two.close()


def test_of_two_processes_that_place_a_blob_one_does_and_the_other_finds_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    disk = Disk(tmp_path)
    one, two = (BlobBlocks(disk, DIGEST, SIZE) for _ in range(2))
    one.write(0, [CONTENT])
    assert one.verify()
    one.place()
    assert two.place().read_bytes() == CONTENT
    assert two.map.verified
    two.drop()
    assert not disk.whole(DIGEST).exists()
    assert not disk.whole_map(DIGEST).exists()
    one.close()
    two.close()


def test_what_is_placed_while_another_opens_it_is_not_begun_anew(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    disk = Disk(tmp_path)
    one = BlobBlocks(disk, DIGEST, SIZE)
    one.write(0, [CONTENT])
    assert one.verify()
    one.place()
    assert not disk.partial(DIGEST).exists()
    late = BlobBlocks(disk, DIGEST, SIZE)
    late.drop()
    assert disk.whole(DIGEST).read_bytes() == CONTENT
    assert find_map(disk.whole_map(DIGEST), SIZE) is not None
    late.close()
    one.close()


@pytest.mark.parametrize("claimed", [SIZE - BLOCK, SIZE + BLOCK])
def test_who_believes_in_another_size_takes_nothing_from_those_who_read(
    tmp_path: Path, claimed: int
) -> None:
    tmp_path.chmod(0o700)
    disk = Disk(tmp_path)
    one = BlobBlocks(disk, DIGEST, SIZE)
    one.write(0, [CONTENT])
    other = BlobBlocks(disk, DIGEST, claimed)
    assert other.is_empty()
    assert os.pread(one.fd, SIZE, 0) == CONTENT
    assert one.verify()
    one.place()
    assert not disk.whole(DIGEST).exists()
    one.close()
    other.close()


def test_checksums_that_a_crash_kept_from_their_place_are_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    disk = Disk(tmp_path)
    one = BlobBlocks(disk, DIGEST, SIZE)
    one.write(0, [CONTENT])
    assert one.verify()
    one.place()
    one.close()
    os.rename(disk.whole_map(DIGEST), disk.partial_map(DIGEST))
    found = open_whole(disk, DIGEST, SIZE, lambda: pytest.fail("it was hashed again"))
    assert found is not None
    assert found.complete
    BlobBlocks(disk, DIGEST, SIZE, found).close()


async def test_what_a_process_verified_that_was_killed_before_it_placed_it_is_placed_by_the_next(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    disk = Disk(tmp_path)
    killed = BlobBlocks(disk, DIGEST, SIZE)
    killed.write(0, [CONTENT])
    assert killed.verify()
    killed.close()
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 0, 10) == CONTENT[:10]
        await placed(tmp_path, blob)
    assert not source.served


async def test_all_that_a_stopped_process_holds_is_taken_over_after_one_patience(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    tmp_path.chmod(0o700)
    other = BlobBlocks(Disk(tmp_path), DIGEST, SIZE)
    for start, stop in ((0, 3), (3, 20), (25, 30), (35, other.count)):  # as of several fetches
        assert other.map.lock(start, stop) == stop
    other.write(0, [CONTENT[:BLOCK]])
    async with caching(source, tmp_path) as blobs:
        began = trio.current_time()
        assert await blobs.read_blob(blob, 0, SIZE) == CONTENT
        assert trio.current_time() - began < 2 * Timing().stall_timeout
    assert sum(source.served) <= SIZE
    assert len(source.opened) <= 10
    other.close()


@pytest.mark.parametrize("released", [True, False], ids=["for a while", "for ever"])
@pytest.mark.parametrize("which", ["header", "map", "header of a whole"])
async def test_a_map_that_another_process_holds_is_waited_for_and_not_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, which: str, released: bool
) -> None:
    """`header`: held by a process that hashes, or was stopped while it did. `map`: held by one that
    evicts.
    """
    source = MemorySource()
    blob = source.put(CONTENT)
    tmp_path.chmod(0o700)
    other = BlobBlocks(Disk(tmp_path), DIGEST, SIZE)
    if which == "header of a whole":
        other.write(0, [CONTENT])
    if which == "map":
        fcntl.flock(other.map.descriptor, fcntl.LOCK_EX)
    else:
        assert other.map.try_lock_header()
    async with caching(source, tmp_path) as blobs, trio.open_nursery() as nursery:

        async def release() -> None:
            await trio.sleep(5)
            fcntl.flock(other.map.descriptor, fcntl.LOCK_UN)
            other.map.unlock_header()

        if released:
            nursery.start_soon(release)
        began = trio.current_time()
        assert await blobs.read_blob(blob, 0, SIZE) == CONTENT
        assert trio.current_time() - began < 3 * Timing().stall_timeout
    other.close()


async def test_a_damaged_block_that_a_stopped_process_has_locked_is_fetched_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    tmp_path.chmod(0o700)
    other = BlobBlocks(Disk(tmp_path), DIGEST, SIZE)
    other.write(0, [CONTENT[: 8 * BLOCK]])
    assert other.map.lock(0, 8) == 8
    os.pwrite(other.fd, b"damaged", 5 * BLOCK)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 5 * BLOCK, 10) == CONTENT[5 * BLOCK : 5 * BLOCK + 10]
        assert await blobs.read_blob(blob, 0, SIZE) == CONTENT
    other.close()
