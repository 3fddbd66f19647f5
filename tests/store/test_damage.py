"""A disk that damages content: reads detect it, and the damaged blocks are fetched again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from ocifs.content import Blob
from ocifs.errors import IntegrityError, Unreachable
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from tests.store.source import Fault, MemorySource
from tests.store.test_blobs import caching, placed, whole

SIZE = 30 * BLOCK + 5
CONTENT = random.Random(6).randbytes(SIZE)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


async def kept(blobs: CachedBlobs, blob: Blob, directory: Path) -> Path:
    """The path of a blob that was read completely."""
    assert await whole(blobs, blob) == CONTENT
    await placed(directory, blob)
    with trio.fail_after(10):
        while not Disk(directory).whole_map(blob.digest).exists():
            await trio.lowlevel.checkpoint()
    return Disk(directory).whole(blob.digest)


@pytest.mark.parametrize("offsets", [[0], [SIZE - 1], [3 * BLOCK + 7, 3 * BLOCK + 9, 20 * BLOCK]])
@pytest.mark.parametrize("reopened", [False, True])
async def test_a_damaged_block_is_fetched_again_and_no_other(
    tmp_path: Path, offsets: list[int], reopened: bool
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
        if not reopened:
            source.served.clear()
            for offset in offsets:
                flip(path, offset)
            assert await whole(blobs, blob) == CONTENT
    if reopened:
        source.served.clear()
        for offset in offsets:
            flip(path, offset)
        async with caching(source, tmp_path) as blobs:
            for offset in offsets:
                assert await blobs.read_blob(blob, offset, 1) == CONTENT[offset : offset + 1]
            assert await whole(blobs, blob) == CONTENT
    assert path.read_bytes() == CONTENT
    assert 0 < sum(source.served) <= len({offset // BLOCK for offset in offsets}) * 4 * BLOCK


async def test_damage_to_a_blob_of_which_parts_are_here_is_mended_too(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 0, 2 * BLOCK) == CONTENT[: 2 * BLOCK]
        source.served.clear()
        flip(Disk(tmp_path).partial(blob.digest), BLOCK + 9)
        assert await blobs.read_blob(blob, BLOCK, 10) == CONTENT[BLOCK : BLOCK + 10]
        assert 0 < sum(source.served) <= 4 * BLOCK
        flip(Disk(tmp_path).partial(blob.digest), 9)
        source.always = Fault(Unreachable("gone"))
        with pytest.raises(Unreachable):
            await blobs.read_blob(blob, 0, 10)
        assert await blobs.read_blob(blob, BLOCK, BLOCK) == CONTENT[BLOCK : 2 * BLOCK]
        source.always = Fault()
        assert await whole(blobs, blob) == CONTENT
        await placed(tmp_path, blob)
    assert Disk(tmp_path).whole(blob.digest).read_bytes() == CONTENT


async def test_damage_is_reported_and_so_is_its_end(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    reports: list[str] = []
    async with caching(source, tmp_path, report=reports.append) as blobs:
        path = await kept(blobs, blob, tmp_path)
        assert not reports
        flip(path, BLOCK)
        await blobs.read_blob(blob, 0, 2 * BLOCK)
    assert len(reports) == 2
    assert all(str(blob.digest) in line for line in reports)


@pytest.mark.parametrize(
    "fault",
    [Fault(Unreachable("gone")), Fault(content=lambda data: bytes(len(data)))],
    ids=["gone", "other content"],
)
async def test_what_cannot_be_mended_is_an_integrity_error_and_the_rest_is_served(
    tmp_path: Path, fault: Fault
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
        flip(path, 5 * BLOCK)
        source.always = fault
        with pytest.raises(IntegrityError):
            await blobs.read_blob(blob, 5 * BLOCK, 10)
        source.always = Fault()
        assert await whole(blobs, blob) == CONTENT
        await placed(tmp_path, blob)
        assert path.read_bytes() == CONTENT


async def test_with_the_registry_gone_what_is_sound_is_served_still(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
    flip(path, 5 * BLOCK)
    source.always = Fault(Unreachable("gone"))
    async with caching(source, tmp_path) as blobs:
        for _ in range(2):
            with pytest.raises(IntegrityError):
                await blobs.read_blob(blob, 5 * BLOCK, 10)
            assert await blobs.read_blob(blob, 0, 5 * BLOCK) == CONTENT[: 5 * BLOCK]
            assert await blobs.read_blob(blob, 6 * BLOCK, SIZE) == CONTENT[6 * BLOCK :]


async def test_another_session_mends_what_one_found_and_was_ended_with(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as one:
        path = await kept(one, blob, tmp_path)
        async with caching(source, tmp_path) as two:
            assert await whole(two, blob) == CONTENT
            flip(path, 7 * BLOCK)
            source.always = Fault(Unreachable("gone"))
            with pytest.raises(IntegrityError):
                await one.read_blob(blob, 7 * BLOCK, 10)
            source.always = Fault()
            assert await whole(two, blob) == CONTENT
        assert await whole(one, blob) == CONTENT
    assert path.read_bytes() == CONTENT
