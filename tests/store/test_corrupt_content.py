"""Corrupt content is fetched from another place, if there is one and no byte of it was served."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
import trio

from ocifs.errors import IntegrityError
from tests.store.source import Fault, MemorySource
from tests.store.test_blobs import BLOCK, CONTENT, OTHER, SIZE, caching, whole

WRONG = Fault(content=lambda data: OTHER)


async def test_what_nobody_has_seen_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    source = MemorySource(faults=deque([WRONG]), others=1)
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    assert source.corrupt == [blob.digest]


async def test_many_who_wait_all_get_what_is_right(tmp_path: Path) -> None:
    source = MemorySource(faults=deque([WRONG]), others=1)
    blob = source.put(CONTENT)
    got = []

    async def reader(blobs: object) -> None:
        got.append(await whole(blobs, blob))  # type: ignore[arg-type]

    async with caching(source, tmp_path, verify_full=True) as blobs:
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(reader, blobs)
    assert got == [CONTENT] * 16
    assert len(source.corrupt) == 1


async def test_several_may_be_wrong_one_after_the_other(tmp_path: Path) -> None:
    source = MemorySource(faults=deque([WRONG, WRONG]), others=2)
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT


async def test_without_an_elsewhere_it_is_an_error(tmp_path: Path) -> None:
    source = MemorySource(always=WRONG, others=1)
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        with pytest.raises(IntegrityError):
            await whole(blobs, blob)
    assert len(source.corrupt) == 2


async def test_bytes_that_were_seen_are_not_joined_with_others_from_elsewhere(
    tmp_path: Path,
) -> None:
    source = MemorySource(faults=deque([WRONG] * 20), others=1)
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 0, BLOCK) == OTHER[:BLOCK]
        source.faults.extend([WRONG] * 20)
        with pytest.raises(IntegrityError):
            await blobs.read_blob(blob, BLOCK, SIZE)
        source.faults.clear()
        assert await whole(blobs, blob) == CONTENT
    assert len(source.corrupt) == 1


async def test_a_size_that_is_wrong_is_noticed_at_once_and_asked_for_elsewhere(
    tmp_path: Path,
) -> None:
    source = MemorySource(faults=deque([Fault(total=lambda size: size + 1)]), others=1)
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 10, 10) == CONTENT[10:20]
    assert source.corrupt == [blob.digest]
