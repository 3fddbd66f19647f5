"""A blob of which some blocks are cached."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.errors import IntegrityError, Unsupported
from ocifs.oci.digest import Digest
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.disk import Disk

CONTENT = random.Random(3).randbytes(5 * BLOCK + 99)
BLOCKS = 6
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "cache")


def open_blocks(disk: Disk) -> BlobBlocks:
    return BlobBlocks(disk, DIGEST, len(CONTENT))


def put(blocks: BlobBlocks, block: int, content: bytes = CONTENT) -> None:
    blocks.write(block * BLOCK, [content[block * BLOCK : (block + 1) * BLOCK]])


def test_what_is_written_is_here_and_nothing_else(disk: Disk) -> None:
    blocks = open_blocks(disk)
    assert blocks.first_missing(0, BLOCKS) == 0
    put(blocks, 0)
    put(blocks, 3)
    assert [blocks.has(block) for block in range(BLOCKS)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert blocks.first_missing(0, BLOCKS) == 1
    assert blocks.first_missing(3, BLOCKS) == 4
    assert blocks.first_missing(3, 4) is None
    assert not blocks.is_complete()
    blocks.close()


def test_blocks_outlive_the_process_and_are_checked_before_they_are_believed(disk: Disk) -> None:
    first = open_blocks(disk)
    put(first, 1)
    put(first, 2)
    first.close()
    second = open_blocks(disk)
    assert second.has(1)
    assert not second.is_trusted(1, 3)
    second.check(1, 3)
    assert second.is_trusted(1, 3)
    assert second.has(1)
    assert second.has(2)
    second.close()


@pytest.mark.parametrize(
    "damage", [lambda data: bytes(len(data)), lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_a_block_whose_content_did_not_reach_the_disk_is_missing(
    disk: Disk, damage: Callable[[bytes], bytes]
) -> None:
    first = open_blocks(disk)
    put(first, 1)
    put(first, 2)
    first.close()
    with disk.partial(DIGEST).open("r+b") as file:
        file.seek(BLOCK)
        file.write(damage(CONTENT[BLOCK : 2 * BLOCK]))
    second = open_blocks(disk)
    second.check(0, BLOCKS)
    assert not second.has(1)
    assert second.has(2)
    second.close()


def test_a_map_of_another_size_is_not_believed(disk: Disk) -> None:
    first = open_blocks(disk)
    put(first, 0)
    first.close()
    other = BlobBlocks(disk, DIGEST, len(CONTENT) + BLOCK)
    assert other.first_missing(0, 1) == 0
    other.close()


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(BLOCKS)), run=st.integers(1, 3))
def test_in_whatever_order_blocks_come_the_whole_is_verified_and_placed(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], run: int
) -> None:
    disk = Disk(tmp_path_factory.mktemp("cache"))
    blocks = open_blocks(disk)
    for block in order:
        blocks.write(block * BLOCK, [CONTENT[block * BLOCK : (block + run) * BLOCK]])
    assert blocks.is_complete()
    blocks.verify()
    assert blocks.place().read_bytes() == CONTENT
    assert not disk.partial(DIGEST).exists()
    blocks.close()


@pytest.mark.parametrize("wrong", range(BLOCKS))
def test_other_content_is_dropped(disk: Disk, wrong: int) -> None:
    blocks = open_blocks(disk)
    for block in range(BLOCKS):
        put(blocks, block, bytes(len(CONTENT)) if block == wrong else CONTENT)
    with pytest.raises(IntegrityError):
        blocks.verify()
    assert not disk.partial(DIGEST).exists()
    assert not disk.whole(DIGEST).exists()
    blocks.close()
    again = open_blocks(disk)
    assert again.first_missing(0, BLOCKS) == 0
    again.close()


def test_a_blob_of_exactly_some_blocks_has_no_empty_one(disk: Disk) -> None:
    content = CONTENT[: 2 * BLOCK]
    blocks = BlobBlocks(disk, Digest.of(content), len(content))
    assert blocks.count == 2
    blocks.write(0, [content])
    blocks.verify()
    blocks.close()


def test_content_that_nobody_can_verify_is_not_kept(disk: Disk) -> None:
    with pytest.raises(Unsupported):
        BlobBlocks(disk, Digest.parse("md5:abc"), 10)
