"""A real full disk: first the cache evicts, then reads go to memory, then they fail with ENOSPC."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ocifs.content import Blob
from ocifs.errors import CacheFull, IntegrityError
from ocifs.settings import MIB, CacheSettings, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import CacheDirectory, Disk
from ocifs.store.upkeep.housekeeper import Housekeeper, IdleCloser
from tests.store.source import Fault, MemorySource

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", tmp_path], check=True
    )
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


class Cache:
    """A cache with bounds that never cause an eviction: only the full disk does."""

    def __init__(
        self,
        directory: Path,
        nursery: trio.Nursery,
        source: MemorySource,
        memory: int,
        *,
        verify_full: bool = False,
    ) -> None:
        chosen = CacheSettings(
            directory=directory,
            size=1 << 40,
            free_space=0,
            memory_bytes=memory,
            verify_full=verify_full,
        )
        closers: list[IdleCloser] = []
        housekeeper = Housekeeper(CacheDirectory(directory), chosen, closers)
        self.disk = Disk(directory, housekeeper)
        self.blobs = CachedBlobs(source, self.disk, nursery, Settings(cache=chosen))
        closers.append(self.blobs)
        nursery.start_soon(housekeeper.run)


async def read_all(blobs: CachedBlobs, wanted: list[Blob], *, hold: bool) -> list[bytes]:
    found = []
    for blob in wanted:
        if hold:
            blobs.acquire(blob.digest)
        with trio.fail_after(30):
            found.append(
                b"".join([await blobs.read_blob(blob, at, MIB) for at in range(0, blob.size, MIB)])
            )
    return found


@pytest.mark.parametrize("hold", [False, True], ids=["evicted", "held, so in memory"])
async def test_a_full_disk_fails_no_read(small: Path, hold: bool) -> None:
    source = MemorySource(piece=MIB)
    contents = [random.Random(n).randbytes(2 * MIB) for n in range(8)]
    wanted = [source.put(content) for content in contents]
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 64 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert await read_all(cache.blobs, wanted, hold=hold) == contents
        await read_all(
            cache.blobs, wanted, hold=hold
        )  # what the disk had of those that are in memory now
        served = sum(source.served)
        assert await read_all(cache.blobs, wanted if hold else wanted[-1:], hold=hold) == (
            contents if hold else contents[-1:]
        )
        assert sum(source.served) == served or not hold
        nursery.cancel_scope.cancel()
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("ocifs-")]


async def test_in_memory_wrong_bytes_are_an_error_as_on_disk(small: Path) -> None:
    source = MemorySource(piece=MIB)
    good = [source.put(random.Random(n).randbytes(2 * MIB)) for n in range(3)]
    bad = source.put(random.Random(9).randbytes(2 * MIB))
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 64 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        await read_all(cache.blobs, good, hold=True)
        source.always = Fault(content=lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(IntegrityError):
            await cache.blobs.read_blob(bad, 0, bad.size)
        assert (
            bad.digest in cache.blobs._opened.overflow.spilled
            or not cache.disk.whole(bad.digest).exists()
        )
        nursery.cancel_scope.cancel()


async def test_when_the_memory_is_full_too_it_is_an_error(small: Path) -> None:
    source = MemorySource(piece=MIB)
    contents = [random.Random(n).randbytes(2 * MIB) for n in range(8)]
    wanted = [source.put(content) for content in contents]
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 3 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CacheFull):
            await read_all(cache.blobs, wanted, hold=True)
        for blob in wanted:
            cache.blobs._opened._held.pop(blob.digest, None)
        assert await read_all(cache.blobs, wanted, hold=False) == contents  # there is room again
        nursery.cancel_scope.cancel()


# Larger than the disk and the memory of these tests together.
LARGE = 40 * MIB


@pytest.mark.parametrize("memory", [3 * MIB, 8 * MIB, 16 * MIB])
async def test_a_blob_larger_than_disk_and_memory_is_read_to_its_end(
    small: Path, memory: int
) -> None:
    source = MemorySource(piece=MIB)
    content = random.Random(1).randbytes(LARGE)
    blob = source.put(content)
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, memory)
        await trio.testing.wait_all_tasks_blocked()
        assert await read_all(cache.blobs, [blob], hold=True) == [content]
        # Most of it came once, although the readahead is larger than the memory.
        assert sum(source.served) < 3 * LARGE
        # What was forgotten is fetched again.
        assert await read_all(cache.blobs, [blob], hold=True) == [content]
        for offset in (LARGE - MIB, 7, LARGE // 2, 5 * MIB):
            assert await cache.blobs.read_blob(blob, offset, 1000) == content[offset:][:1000]
        nursery.cancel_scope.cancel()


async def test_two_readers_of_a_blob_larger_than_memory_get_its_bytes(small: Path) -> None:
    source = MemorySource(piece=MIB)
    content = random.Random(2).randbytes(LARGE)
    blob = source.put(content)
    results: list[bytes] = []

    async def read(start: int) -> None:
        for at in range(start, LARGE, MIB):
            results.append(b"")
            assert await cache.blobs.read_blob(blob, at, MIB) == content[at : at + MIB]

    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 16 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        cache.blobs.acquire(blob.digest)
        async with trio.open_nursery() as readers:
            readers.start_soon(read, 0)
            readers.start_soon(read, LARGE // 2)
        assert len(results) == LARGE // MIB * 3 // 2
        nursery.cancel_scope.cancel()


async def test_the_end_of_a_wrong_blob_larger_than_memory_is_not_served(small: Path) -> None:
    source = MemorySource(piece=MIB)
    blob = source.put(random.Random(3).randbytes(LARGE))
    # One byte differs, long forgotten when the last one is read.
    source.always = Fault(content=lambda data: bytes([data[0] ^ 1]) + data[1:])
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 8 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        cache.blobs.acquire(blob.digest)
        served = 0
        with pytest.raises(IntegrityError, match="does not match the digest"):
            while served < LARGE:
                served += len(await cache.blobs.read_blob(blob, served, MIB))
        # The first bytes were served before they were verified, as always.
        assert 8 * MIB < served < LARGE
        nursery.cancel_scope.cancel()


async def test_a_forgotten_block_must_come_back_with_the_same_bytes(small: Path) -> None:
    source = MemorySource(piece=MIB)
    content = random.Random(4).randbytes(LARGE)
    blob = source.put(content)
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 8 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        cache.blobs.acquire(blob.digest)
        for at in range(0, LARGE // 2, MIB):
            await cache.blobs.read_blob(blob, at, MIB)
        source.always = Fault(content=lambda data: data[:8] + b"wrong" + data[13:])
        with pytest.raises(IntegrityError):
            await cache.blobs.read_blob(blob, 0, 100)
        source.always = Fault()
        assert await cache.blobs.read_blob(blob, 0, 100) == content[:100]
        nursery.cancel_scope.cancel()


async def test_full_verification_needs_the_memory_for_the_whole(small: Path) -> None:
    source = MemorySource(piece=MIB)
    blob = source.put(random.Random(5).randbytes(LARGE))
    async with trio.open_nursery() as nursery:
        cache = Cache(small, nursery, source, 8 * MIB, verify_full=True)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CacheFull):
            await cache.blobs.read_blob(blob, 0, MIB)
        nursery.cancel_scope.cancel()
