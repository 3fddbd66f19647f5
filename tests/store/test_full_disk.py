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
        self, directory: Path, nursery: trio.Nursery, source: MemorySource, memory: int
    ) -> None:
        chosen = CacheSettings(directory=directory, size=1 << 40, free_space=0, memory_bytes=memory)
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
