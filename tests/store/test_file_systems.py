"""The cache on each file system that is documented to work: real ones, created for the test."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ocifs.settings import KIB, MIB, CacheSettings, Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from ocifs.store.upkeep.eviction import Bounds, bounds, evict
from ocifs.store.upkeep.inventory import inventory
from tests.store.source import MemorySource

# How each is made on a file of this size; XFS takes no less than 300 MiB. The file is sparse.
MADE = {
    "ext4": (64, ["mkfs.ext4", "-q", "-F"]),
    "xfs": (320, ["mkfs.xfs", "-q", "-f"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-f"]),
    "tmpfs": (64, []),
    "overlay": (64, []),
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount file systems")


def run(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True, timeout=60)


@pytest.fixture(params=MADE)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own."""
    kind: str = request.param
    size, make = MADE[kind]
    mountpoint = tmp_path / "place"
    mountpoint.mkdir()
    if make and shutil.which(make[0]) is None:
        assert not os.environ.get("CI"), f"{make[0]} must be there in CI: see scripts/setup"
        pytest.skip(f"{make[0]} is not installed")
    under = tmp_path / "under"
    if make:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(size * MIB)
        run(*make, image)
        run("mount", "-o", "loop", image, mountpoint)
    else:
        under.mkdir()
        run(
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={size}m",
            "tmpfs",
            mountpoint if kind == "tmpfs" else under,
        )
        if kind == "overlay":
            for name in ("lower", "upper", "work"):
                (under / name).mkdir()
            options = f"lowerdir={under}/lower,upperdir={under}/upper,workdir={under}/work"
            run("mount", "-t", "overlay", "-o", options, "overlay", mountpoint)
    try:
        yield mountpoint
    finally:
        run("umount", "-l", mountpoint)
        if kind == "overlay":
            run("umount", "-l", under)


async def test_a_cache_works_there(place: Path) -> None:
    place.chmod(0o700)
    directory = place / "cache"
    source = MemorySource(piece=256 * KIB)
    blobs_of = [source.put(random.Random(n).randbytes(2 * MIB)) for n in range(4)]
    sparse = source.put(random.Random(9).randbytes(16 * MIB))
    chosen = CacheSettings(directory=directory)
    disk = Disk(directory)
    async with trio.open_nursery() as nursery:
        first, second = (
            CachedBlobs(source, Disk(directory), nursery, Settings(cache=chosen)) for _ in range(2)
        )
        for blob in blobs_of:
            expected = source.content[blob.digest]
            assert await first.read_blob(blob, 0, blob.size) == expected
            assert await second.read_blob(blob, 0, blob.size) == expected
        assert sum(source.served) == 4 * 2 * MIB  # each byte once, whoever read it
        await first.read_blob(sparse, 9 * BLOCK, 10)
        with trio.fail_after(20):
            while not all(disk.whole(blob.digest).exists() for blob in blobs_of):
                await trio.sleep(0.01)
        # Sparse stays sparse, and is counted so.
        (part,) = [item for item in inventory(disk) if item.digest == sparse.digest]
        assert part.length == sparse.size
        assert part.size < MIB
        # What is open stays, by locks of this file system.
        second.close_idle(0)
        first.acquire(blobs_of[0].digest)
        first.close_idle(0)
        for number, blob in enumerate(blobs_of):
            os.utime(disk.whole(blob.digest), (100 + number, 100 + number))
        with trio.fail_after(
            20
        ):  # a blob is in use until it was brought to the disk, which takes its time
            while {item.digest for item in inventory(disk)} != {blobs_of[0].digest}:
                for each in (first, second):
                    each.close_idle(0)
                assert evict(disk, Bounds(0, 0)) is not None
                await trio.sleep(0.01)
        # What was evicted comes again.
        assert await first.read_blob(blobs_of[1], 0, 2 * MIB) == source.content[blobs_of[1].digest]
        nursery.cancel_scope.cancel()
    for each in (first, second):
        each.release(blobs_of[0].digest)
        each.close_idle(0)
    evict(disk, Bounds(0, 0))
    assert not inventory(disk)
    assert (
        bounds(disk, chosen).size == os.statvfs(place).f_blocks * os.statvfs(place).f_frsize // 10
    )
