"""Several mounts, each with its daemon, share one cache.

Each byte is fetched once, even if a daemon is killed, and damage on the disk is detected.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.mount import Mounted, mounted
from tests.support.push import push_blob
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

MOUNTS, PROCESSES, READERS = 4, 8, 16
SIZES = (700_000, 3_000_000, 6_500_000, 65_536, 9_000_001)

# A process with many readers. Each reads blobs completely, in parts from a random offset, and
# verifies them.
READING = """
import hashlib, os, random, sys, threading
seed, readers, *paths = sys.argv[1:]
wrong = []
def read(number):
    dice = random.Random(f"{seed} {number}")
    for path in dice.sample(paths, len(paths)):
        size = os.stat(path).st_size
        content = bytearray(size)
        piece = dice.choice((4096, 60_000, 1 << 20))
        start = dice.randrange(size) // piece * piece
        with open(path, "rb", buffering=0) as file:
            for place in [*range(start, size, piece), *range(0, start, piece)]:
                file.seek(place)
                part = file.read(min(piece, size - place))
                content[place : place + len(part)] = part
        if hashlib.sha256(content).hexdigest() != path.rpartition(":")[2]:
            wrong.append(path)
threads = [threading.Thread(target=read, args=(number,)) for number in range(int(readers))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(bool(wrong))
"""


@pytest.fixture
def registry(tmp_path: Path):  # type: ignore[no-untyped-def]
    place = tmp_path / "registry"
    place.mkdir()
    with running_registry(place) as running:
        yield running


def bytes_of_blobs(registry: Registry) -> int:
    """The number of bytes of blobs that the registry has sent, from its log."""
    answers = re.findall(
        r'method=GET .*uri="[^"]*/blobs/.*written=(\d+)', registry.log.read_text(errors="replace")
    )
    return sum(map(int, answers))


def start_reader(
    seed: int, readers: int, mount: Path, digests: list[str], errors: int | None = None
) -> subprocess.Popen[bytes]:
    paths = [str(mount / "app/_blobs" / digest) for digest in digests]
    return subprocess.Popen(
        [sys.executable, "-c", READING, str(seed), str(readers), *paths], stderr=errors
    )


def push_random(registry: Registry, sizes: tuple[int, ...]) -> list[str]:
    dice = random.Random(9)
    return [push_blob(registry.url, "app", dice.randbytes(size)) for size in sizes]


def attributes_known(cache: Path, digests: list[str]) -> None:
    """Wait until every blob has its final path."""
    deadline = time.monotonic() + 30
    left = [
        cache / "ocifs/v1" / kind / digest.replace(":", "/")
        for digest in digests
        for kind in ("blobs", "sums")
    ]
    while not all(path.exists() for path in left):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process moves them, without an event


def only_whole(cache: Path) -> None:
    """Assert that the cache has only complete blobs, and no temporary or partial files."""
    files = [path for path in (cache / "ocifs/v1").rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.startswith(".tmp-")]
    assert not [path for path in files if "partial" in path.parts]
    for path in files:
        if "blobs" in path.parts:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_eight_processes_on_four_mounts_of_one_cache_fetch_each_byte_once(
    registry: Registry, tmp_path: Path
) -> None:
    digests = push_random(registry, SIZES)
    with ExitStack() as stack:
        points = [tmp_path / f"mnt{number}" for number in range(MOUNTS)]
        mounts = [
            stack.enter_context(mounted(registry.host, point, tmp_path / "cache"))
            for point in points
        ]
        readers = [
            start_reader(n, READERS, mounts[n % MOUNTS].path, digests) for n in range(PROCESSES)
        ]
        assert [reader.wait(100) for reader in readers] == [0] * PROCESSES
        attributes_known(tmp_path / "cache", digests)
    assert bytes_of_blobs(registry) == sum(SIZES)
    only_whole(tmp_path / "cache")


def test_one_blob_read_by_sixty_four_at_once_is_fetched_once(
    registry: Registry, tmp_path: Path
) -> None:
    digests = push_random(registry, (9_000_000,))
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        readers = [start_reader(n, 16, mount.path, digests) for n in range(4)]
        assert [reader.wait(60) for reader in readers] == [0] * 4
    assert bytes_of_blobs(registry) == 9_000_000


def test_sixty_four_blobs_read_by_sixty_four_at_once_are_fetched_once(
    registry: Registry, tmp_path: Path
) -> None:
    digests = push_random(registry, tuple(200_000 + number for number in range(64)))
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        readers = [start_reader(n, 16, mount.path, digests) for n in range(4)]
        assert [reader.wait(100) for reader in readers] == [0] * 4
    assert bytes_of_blobs(registry) == sum(200_000 + number for number in range(64))


@pytest.mark.parametrize("seed", range(4))
def test_daemons_that_are_killed_while_they_fetch_leave_a_cache_that_the_others_and_the_next_use(
    registry: Registry, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    digests = push_random(registry, (20_000_000, 5_000_000))
    cache = tmp_path / "cache"
    with mounted(registry.host, tmp_path / "stays", cache) as stays:
        for number in range(3):
            with mounted(registry.host, tmp_path / f"mnt{number}", cache) as mount:
                doomed = start_reader(
                    dice.randrange(1 << 30), 2, mount.path, digests, subprocess.DEVNULL
                )
                kill_at(mount, cache, dice.randrange(25_000_000))
                doomed.wait(30)
        assert start_reader(seed, 4, stays.path, digests).wait(60) == 0
    with mounted(registry.host, tmp_path / "next", cache) as mount:
        assert start_reader(seed, 2, mount.path, digests).wait(60) == 0
        attributes_known(cache, digests)
    for digest in digests:
        path = cache / "ocifs/v1/blobs" / digest.replace(":", "/")
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == digest


def kill_at(mount: Mounted, cache: Path, size: int) -> None:
    """Kill a daemon when the cache has `size` bytes, or after a second."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        files = [path for path in cache.rglob("*") if len(path.name) == 64]
        if sum(blocks_of(path) for path in files) * 512 >= size:
            break
        time.sleep(0.001)  # short, to kill it in the middle of a fetch
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait(60)


def blocks_of(path: Path) -> int:
    try:
        return path.stat().st_blocks
    except OSError:
        return 0


def test_bytes_that_change_on_the_disk_under_a_live_mount_are_never_seen(
    registry: Registry, tmp_path: Path
) -> None:
    (digest,) = push_random(registry, (5_000_000,))
    cache = tmp_path / "cache"
    with mounted(registry.host, tmp_path / "mnt", cache) as mount:
        assert start_reader(1, 1, mount.path, [digest]).wait(30) == 0
        attributes_known(cache, [digest])
        kept = cache / "ocifs/v1/blobs" / digest.replace(":", "/")
        file = os.open(kept, os.O_RDWR)
        for offset in (0, 1_000_000, 4_999_999):
            byte = os.pread(file, 1, offset)
            os.pwrite(file, bytes([byte[0] ^ 1]), offset)
        os.close(file)
        shown = os.open(mount.path / "app/_blobs" / digest, os.O_RDONLY)
        os.posix_fadvise(
            shown, 0, 0, os.POSIX_FADV_DONTNEED
        )  # the page cache would hide the damage
        os.close(shown)
        assert start_reader(2, 1, mount.path, [digest]).wait(30) == 0
        report = (mount.path / ".ocifs/errors").read_text()
        assert report.count(digest) == 2
        assert "damaged" in report
        assert f"sha256:{hashlib.sha256(kept.read_bytes()).hexdigest()}" == digest
    assert bytes_of_blobs(registry) < 6_500_000
