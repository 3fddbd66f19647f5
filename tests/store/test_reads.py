"""Reads of cached bytes: when a block is checked again, and from where bytes are read."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.oci.digest import Digest
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.checked import RECENT, CheckedBlocks, is_recent
from ocifs.store.blobs.reads import BlobReads
from ocifs.store.disk import Disk

SIZE = 6 * BLOCK + 77
CONTENT = random.Random(3).randbytes(SIZE)
READS = 50


@pytest.fixture
async def blocks(tmp_path: Path) -> AsyncIterator[BlobBlocks]:
    """A cached blob whose file was not changed for a moment."""
    made = BlobBlocks(Disk(tmp_path), Digest.of(CONTENT), SIZE)
    made.write(0, [CONTENT])
    with trio.fail_after(30):
        await until_old(CheckedBlocks(made.fd, 1))
    yield made
    made.close()


async def until_old(checked: CheckedBlocks) -> None:
    """Wait until the ctime of a file is old enough to notice a later change."""
    while checked.stamp() is None:
        await trio.lowlevel.checkpoint()


def bytes_read() -> int:
    """The bytes that this process has read from files so far (proc_pid_io(5))."""
    return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].split()[0])


def drop(blocks: BlobBlocks) -> None:
    """Remove the file from the page cache."""
    os.fsync(blocks.fd)
    os.posix_fadvise(blocks.fd, 0, 0, os.POSIX_FADV_DONTNEED)


async def test_a_block_is_read_and_checked_once_for_many_small_reads(blocks: BlobBlocks) -> None:
    reads = BlobReads(blocks)
    assert await reads.read(BLOCK + 5, 10) == CONTENT[BLOCK + 5 : BLOCK + 15]
    before = bytes_read()
    for start in range(BLOCK, BLOCK + READS):
        assert await reads.read(start, 10) == CONTENT[start : start + 10]
    assert bytes_read() - before < BLOCK + READS * 100


async def test_a_small_read_across_two_blocks_needs_both_checked(blocks: BlobBlocks) -> None:
    reads = BlobReads(blocks)
    assert await reads.read(5, 10) == CONTENT[5:15]
    os.pwrite(blocks.fd, b"damage", BLOCK)
    assert await reads.read(BLOCK - 5, 10) is None


async def test_a_large_read_is_always_checked(blocks: BlobBlocks) -> None:
    reads = BlobReads(blocks)
    for _ in range(3):
        before = bytes_read()
        assert await reads.read(5, BLOCK) == CONTENT[5 : 5 + BLOCK]
        assert bytes_read() - before >= 2 * BLOCK


def flip(descriptor: int, path: Path) -> None:
    os.pwrite(descriptor, bytes([CONTENT[7] ^ 1]), 7)


def flip_with_old_times(descriptor: int, path: Path) -> None:
    before = os.fstat(descriptor)
    flip(descriptor, path)
    os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(descriptor: int, path: Path) -> None:
    os.ftruncate(descriptor, 7)


def truncate_and_extend(descriptor: int, path: Path) -> None:
    os.ftruncate(descriptor, 7)
    os.ftruncate(descriptor, SIZE)


def write_by_path(descriptor: int, path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other content")


@pytest.mark.parametrize(
    "change", [flip, flip_with_old_times, truncate, truncate_and_extend, write_by_path]
)
@pytest.mark.parametrize("cached", [True, False])
async def test_bytes_that_change_behind_an_open_file_are_noticed(
    blocks: BlobBlocks, tmp_path: Path, change: Callable[[int, Path], None], cached: bool
) -> None:
    reads = BlobReads(blocks)
    assert await reads.read(0, 16) == CONTENT[:16]
    assert await reads.read(0, 16) == CONTENT[:16]
    change(blocks.fd, Disk(tmp_path).partial(blocks.digest))
    if not cached:
        drop(blocks)
    assert await reads.read(0, 16) is None


async def test_a_repaired_block_is_served_again(blocks: BlobBlocks) -> None:
    reads = BlobReads(blocks)
    assert await reads.read(0, 16) == CONTENT[:16]
    os.pwrite(blocks.fd, b"damage", 3)
    assert await reads.read(0, 16) is None
    os.pwrite(blocks.fd, CONTENT[:16], 0)
    assert await reads.read(0, 16) == CONTENT[:16]


async def test_a_change_just_before_the_check_is_not_mistaken_for_none(blocks: BlobBlocks) -> None:
    # A second change within the same tick of the clock would have the same ctime.
    os.pwrite(blocks.fd, CONTENT[:1], 0)
    checked = CheckedBlocks(blocks.fd, blocks.count)
    checked.add(0, 1, checked.stamp())
    assert not checked.are_valid(0, 1)


@pytest.mark.parametrize(
    ("ctime_ns", "age_ns", "recent"),
    [
        (5_000_000_001, 0, True),
        (5_000_000_001, 99_999_999, True),
        (5_000_000_001, 100_000_000, False),
        (5_000_000_000, 100_000_000, True),  # a file system with whole seconds
        (5_000_000_000, 2_000_000_000, False),
        (5_000_000_001, -1, True),  # the clock of a file server is ahead
    ],
)
def test_a_ctime_is_recent_while_a_later_change_may_get_the_same(
    ctime_ns: int, age_ns: int, recent: bool
) -> None:
    assert is_recent(ctime_ns, ctime_ns + age_ns) is recent


async def test_a_check_is_valid_for_a_while(
    blocks: BlobBlocks, autojump_clock: trio.testing.MockClock
) -> None:
    checked = CheckedBlocks(blocks.fd, blocks.count)
    checked.add(0, 2, checked.stamp())
    await trio.sleep(RECENT - 1)
    checked.add(2, 3, checked.stamp())
    assert checked.are_valid(0, 3)
    await trio.sleep(2)
    assert not checked.are_valid(0, 1)
    assert not checked.are_valid(2, 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * BLOCK), st.booleans())))
def test_a_read_is_the_content_whether_or_not_it_is_in_the_page_cache(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[int, int, bool]]
) -> None:
    directory = tmp_path_factory.mktemp("cache")

    async def main() -> None:
        blocks = BlobBlocks(Disk(directory), Digest.of(CONTENT), SIZE)
        blocks.write(0, [CONTENT])
        reads = BlobReads(blocks)
        for offset, length, dropped in wanted:
            if dropped:
                drop(blocks)
            stop = min(offset + length, SIZE)
            assert await reads.read(offset, stop - offset) == CONTENT[offset:stop]
        blocks.close()

    trio.run(main)


async def test_many_readers_at_once_get_their_own_bytes(blocks: BlobBlocks) -> None:
    reads = BlobReads(blocks)

    async def read(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(20):
            offset = dice.randrange(SIZE - 1)
            length = min(dice.choice([1, 100, BLOCK, 4 * BLOCK]), SIZE - offset)
            if dice.random() < 0.3:
                drop(blocks)
            assert await reads.read(offset, length) == CONTENT[offset : offset + length]

    async with trio.open_nursery() as nursery:
        for seed in range(12):
            nursery.start_soon(read, seed)
