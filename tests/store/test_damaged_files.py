"""Damaged files of the cache: reads return the right bytes or an error, later the right bytes."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ocifs.content import Blob
from ocifs.errors import IntegrityError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import CacheSettings, Settings
from ocifs.store.blobs.blockmap import BLOCK, map_length
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from tests.store.source import Fault, MemorySource
from tests.store.test_blobs import caching, placed, whole
from tests.store.test_damage import flip, kept

SIZE = 30 * BLOCK + 5
CONTENT = random.Random(6).randbytes(SIZE)
MAP = map_length(SIZE)


def cut(length: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, length)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        path.unlink()
        make(path)

    return do


def written(offset: int, data: bytes) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return do


def filled_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(b"x")


IN_THE_WAY = {
    "removed": replaced(lambda path: None),
    "directory": replaced(os.mkdir),
    "filled directory": replaced(filled_directory),
    "link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "link to a file": replaced(lambda path: path.symlink_to("/etc/hostname")),
    "FIFO": replaced(os.mkfifo),
    "empty": cut(0),
    "one byte": cut(1),
    "unreadable": lambda path: path.chmod(0),
}
MAPS = {
    **IN_THE_WAY,
    "cut within the header": cut(10),
    "cut after the header": cut(24),
    "cut within a word": cut(MAP - 3),
    "longer": cut(MAP + 8),
    "zeros": written(0, bytes(MAP)),
    "ones": written(0, b"\xff" * MAP),
    "no magic": written(0, b"?"),
    "another size": written(8, struct.pack("@Q", SIZE + 1)),
    "not verified": written(16, bytes(8)),
    "verified by a garbled flag": written(16, b"\xff" * 8),
    "words without checksums": written(24, bytes(MAP - 24)),
    "garbled words": written(24, random.Random(2).randbytes(MAP - 24)),
    "a garbled word": written(24 + 8 * 5, b"\x55" * 8),
}
BLOBS = {
    **IN_THE_WAY,
    "cut": cut(SIZE - 1),
    "cut at a block": cut(7 * BLOCK),
    "longer": lambda path: os.truncate(path, SIZE + BLOCK),
    "longer by a byte": lambda path: os.truncate(path, SIZE + 1),
    "a bit": lambda path: flip(path, 5 * BLOCK),
    "zeros": written(0, bytes(SIZE)),
}


async def read_twice(
    source: MemorySource, directory: Path, blob: Blob, *, verify_full: bool = False
) -> None:
    """Read right at once, and in the next session from the cache alone."""
    async with caching(source, directory, verify_full=verify_full) as blobs:
        assert await blobs.read_blob(blob, 5 * BLOCK, 10) == CONTENT[5 * BLOCK : 5 * BLOCK + 10]
        assert await whole(blobs, blob) == CONTENT
        await placed(directory, blob)
    source.always = Fault(Unreachable("gone"))
    async with caching(source, directory) as blobs:
        assert await whole(blobs, blob) == CONTENT
    assert Disk(directory).whole(blob.digest).read_bytes() == CONTENT


@pytest.mark.parametrize("flipped", [False, True], ids=["sound", "a bit is wrong"])
@pytest.mark.parametrize("verify_full", [False, True], ids=["", "verify full"])
@pytest.mark.parametrize("damage", MAPS.values(), ids=MAPS)
async def test_checksums_of_a_whole_blob(
    tmp_path: Path, damage: Callable[[Path], None], verify_full: bool, flipped: bool
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
    damage(Disk(tmp_path).whole_map(blob.digest))
    if flipped:
        flip(path, 5 * BLOCK)
    await read_twice(source, tmp_path, blob, verify_full=verify_full)


@pytest.mark.parametrize("with_map", [True, False], ids=["with its map", "without"])
@pytest.mark.parametrize("damage", BLOBS.values(), ids=BLOBS)
async def test_a_whole_blob(tmp_path: Path, damage: Callable[[Path], None], with_map: bool) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
    damage(path)
    if not with_map:
        Disk(tmp_path).whole_map(blob.digest).unlink()
    await read_twice(source, tmp_path, blob)


@pytest.mark.parametrize(
    ("which", "damage"),
    [("map", MAPS[name]) for name in MAPS] + [("blob", BLOBS[name]) for name in BLOBS],
    ids=[f"map: {name}" for name in MAPS] + [f"blob: {name}" for name in BLOBS],
)
async def test_a_blob_of_which_parts_are_cached(
    tmp_path: Path, which: str, damage: Callable[[Path], None]
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 4 * BLOCK, 3 * BLOCK)
    disk = Disk(tmp_path)
    damage(disk.partial_map(blob.digest) if which == "map" else disk.partial(blob.digest))
    await read_twice(source, tmp_path, blob)


async def read_while_truncated(
    place: Path, path_of: Callable[[Disk, Digest], Path], length: int, *, is_whole: bool
) -> None:
    """Truncate a file of an open blob, whole or partial, and read all of the blob."""
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, place) as blobs:
        if is_whole:
            await kept(blobs, blob, place)
        else:
            await blobs.read_blob(blob, 4 * BLOCK, 3 * BLOCK)
        os.truncate(path_of(Disk(place), blob.digest), length)
        for start in range(0, SIZE, 3 * BLOCK):
            assert (
                await blobs.read_blob(blob, start, 3 * BLOCK) == CONTENT[start : start + 3 * BLOCK]
            )
    await read_twice(source, place, blob)


@pytest.mark.parametrize("is_whole", [False, True], ids=["parts", "whole"])
@pytest.mark.parametrize("length", [0, 1, 10, 24, 100, MAP - 3, MAP - 8, MAP + 800])
async def test_a_map_that_is_truncated_while_it_is_open(
    tmp_path: Path, length: int, is_whole: bool
) -> None:
    await read_while_truncated(
        tmp_path, Disk.whole_map if is_whole else Disk.partial_map, length, is_whole=is_whole
    )


@pytest.mark.parametrize("is_whole", [False, True], ids=["parts", "whole"])
@pytest.mark.parametrize("length", [0, 1, 5 * BLOCK, SIZE - 1, SIZE + BLOCK])
async def test_a_blob_that_is_truncated_while_it_is_open(
    tmp_path: Path, length: int, is_whole: bool
) -> None:
    await read_while_truncated(
        tmp_path, Disk.whole if is_whole else Disk.partial, length, is_whole=is_whole
    )


@pytest.mark.parametrize("vanishes", ["cache", "v1", "blobs", "sums", "partial"])
async def test_directories_that_are_removed_under_a_reader(tmp_path: Path, vanishes: str) -> None:
    source = MemorySource()
    blob, other = source.put(CONTENT), source.put(CONTENT[::-1])
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o700)
    async with caching(source, directory) as blobs:
        await kept(blobs, blob, directory)
        await blobs.read_blob(other, 4 * BLOCK, 3 * BLOCK)
        shutil.rmtree(
            {"cache": directory, "v1": Disk(directory).root}.get(
                vanishes, Disk(directory).root / vanishes
            )
        )
        assert await whole(blobs, blob) == CONTENT
        assert await whole(blobs, other) == CONTENT[::-1]
        third = source.put(CONTENT[1:])
        assert await whole(blobs, third) == CONTENT[1:]


@pytest.mark.parametrize(
    "name", ["v1/blobs", "v1/sums", "v1/partial", "v1/blobs/sha256", "v1/partial/sha256"]
)
async def test_a_file_in_the_place_of_a_directory_is_read_around(tmp_path: Path, name: str) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    path = tmp_path / name
    path.parent.mkdir(mode=0o700, parents=True)
    path.write_bytes(b"in the way")
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT


async def test_a_descriptor_with_another_size_removes_nothing(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await kept(blobs, blob, tmp_path)
    source.served.clear()
    for with_map in (True, False):
        if not with_map:
            Disk(tmp_path).whole_map(blob.digest).unlink()
        for size in (SIZE - 1, SIZE + 1, 1, 10 * SIZE):
            async with caching(source, tmp_path) as blobs:
                with pytest.raises(IntegrityError):
                    await blobs.read_blob(Blob(blob.repository, blob.digest, size), 0, 1)
                assert await whole(blobs, blob) == CONTENT
    assert not source.served


async def test_a_whole_blob_without_a_map_is_hashed_once_for_all_readers_and_sessions(
    tmp_path: Path,
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await kept(blobs, blob, tmp_path)
    Disk(tmp_path).whole_map(blob.digest).unlink()
    source.always = Fault(Unreachable("gone"))
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    made = Disk(tmp_path).whole_map(blob.digest).stat()
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    assert Disk(tmp_path).whole_map(blob.digest).stat().st_ino == made.st_ino


async def test_offline_what_is_sound_is_served_and_the_rest_an_error(tmp_path: Path) -> None:
    import trio

    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
    os.truncate(path, 10 * BLOCK)
    offline = Settings(cache=CacheSettings(directory=tmp_path, offline=True))
    async with trio.open_nursery() as nursery:
        reader = CachedBlobs(source, Disk(tmp_path), nursery, offline)
        for _ in range(2):
            assert await reader.read_blob(blob, 0, 10 * BLOCK) == CONTENT[: 10 * BLOCK]
            with pytest.raises(IntegrityError):
                await reader.read_blob(blob, 10 * BLOCK, 1)
        nursery.cancel_scope.cancel()
