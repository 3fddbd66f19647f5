"""Read a large image completely with a daemon whose control group has 150 MB, page cache included.

    scripts/bench --only cgroup
    python -m scripts.bench_cgroup [--size MB] [--limit MB] [PATTERN...]

Rules that hold here:
- The layers are gzip and zstd, with many files of mixed sizes.
- Each pattern has its own mount and cache.
- Only the daemon is in the group. The readers' pages are charged to the readers.
- A killed daemon, a failed read and a short read are errors.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ocifs.layers import zstd
from scripts.bench_memory import GOAL_MB, MB, MIB, blobs_of, peak, piece, push_image
from scripts.bench_sample import Sample
from tests.layers.tars import entry, tar
from tests.support.memorygroup import MemoryGroup, memory_group
from tests.support.mount import Mounted, mounted
from tests.support.registry import Registry, running_registry

LIMIT_MB, SIZE_MB, LAYER_MB = 150, 1500, 250
READERS, RANDOM_READS, CHUNK = 16, 60, 128 << 10
SIZES = (
    (0.70, 200, 20_000),
    (0.95, 20_000, 400_000),
    (0.995, 400_000, 4_000_000),
    (1.0, 4_000_000, 40_000_000),
)
DICE = random.Random(7)


def mixed_files(layer: int, size: int) -> bytes:
    """A tar of `size` bytes. Most files are small, and most bytes are in large files.

    Half of the large files are incompressible.
    """
    entries, left = [], size
    while left > 0:
        chance = DICE.random()
        low, high = next((low, high) for share, low, high in SIZES if chance <= share)
        length = min(DICE.randrange(low, high), left)
        if length > 400_000 and DICE.random() < 0.5:
            content = DICE.randbytes(length)
        else:
            content = b"".join(piece(min(MIB, length - at)) for at in range(0, length, MIB))
        entries.append(entry(f"l{layer}/d{len(entries) // 200}/f{len(entries)}", content=content))
        left -= length
    return tar(*entries)


def push_large_image(
    registry: Registry, name: str, size: int, layer_size: int = LAYER_MB * MB
) -> int:
    """Push an image with alternating gzip and zstd layers, and return its compressed size.

    `size` is the uncompressed size.
    """
    layers = []
    for number in range(max(2, -(-size // layer_size))):
        plain = mixed_files(number, min(layer_size, size // 2))
        packed = gzip.compress(plain, 1, mtime=0) if number % 2 == 0 else zstd.compress(plain, 3)
        layers.append((plain, packed, "+gzip" if number % 2 == 0 else "+zstd"))
    push_image(registry, name, layers)
    return sum(len(packed) for _, packed, _ in layers)


def files_below(place: Path) -> list[tuple[Path, int]]:
    """All files of a tree, with their sizes."""
    found = [
        Path(directory, name) for directory, _, names in os.walk(place) for name in sorted(names)
    ]
    looked = [(path, path.lstat()) for path in found]
    return [(path, status.st_size) for path, status in looked if stat.S_ISREG(status.st_mode)]


def drain(files: Sequence[tuple[Path, int]]) -> int:
    """Read files completely, and return the total. Raises OSError if a size differs."""
    total = 0
    for path, size in files:
        with path.open("rb", buffering=0) as file:
            read = 0
            while data := file.read(CHUNK):
                read += len(data)
        if read != size:
            raise OSError(f"{path} has {read} bytes, not {size}")
        total += read
    return total


def in_order(mount: Mounted) -> int:
    return drain(files_below(mount.path / "rootfs"))


def shuffled(mount: Mounted) -> int:
    files = files_below(mount.path / "rootfs")
    DICE.shuffle(files)
    return drain(files)


def blobs(mount: Mounted) -> int:
    return drain([(path, path.stat().st_size) for path in blobs_of(mount)])


def blobs_side_by_side(mount: Mounted) -> int:
    files = [(path, path.stat().st_size) for path in blobs_of(mount)]
    with ThreadPoolExecutor(len(files)) as pool:
        return sum(pool.map(lambda file: drain([file]), files))


def side_by_side(mount: Mounted) -> int:
    """All files, by READERS readers, each in a different order."""
    files = files_below(mount.path / "rootfs")
    DICE.shuffle(files)
    with ThreadPoolExecutor(READERS) as pool:
        return sum(pool.map(drain, [files[start::READERS] for start in range(READERS)]))


def at_random(mount: Mounted) -> int:
    """Parts of files and of blobs, by READERS readers."""
    files = files_below(mount.path / "rootfs") + [
        (path, path.stat().st_size) for path in blobs_of(mount)
    ]
    weights = [size + 1 for _, size in files]

    def some(seed: int) -> int:
        dice, total = random.Random(seed), 0
        for path, size in dice.choices(files, weights, k=RANDOM_READS):
            with path.open("rb", buffering=0) as file:
                total += len(os.pread(file.fileno(), CHUNK, dice.randrange(max(1, size))))
        return total

    with ThreadPoolExecutor(READERS) as pool:
        return sum(pool.map(some, range(READERS)))


PATTERNS: dict[str, Callable[[Mounted], int]] = {
    "files in order": in_order,
    "files shuffled": shuffled,
    f"files by {READERS} readers": side_by_side,
    "blobs in order": blobs,
    "blobs side by side": blobs_side_by_side,
    f"parts at random by {READERS} readers": at_random,
}


@dataclass(frozen=True)
class Peak:
    """The result of a pattern.

    `resident` and `charged` are the peaks of the daemon and of its group in MB, and `total` is the
    number of bytes read.
    """

    resident: float
    charged: float
    total: int


@contextmanager
def mounted_in(group: MemoryGroup, source: str, place: Path) -> Iterator[Mounted]:
    """A mount with its daemon in a control group."""
    with ExitStack() as stack:
        with group.entered():
            mount = stack.enter_context(mounted(source, place / "mnt", place / "cache"))
        yield mount


def measure(
    source: str, place: Path, work: Callable[[Mounted], int], limit: int = LIMIT_MB * MB
) -> Peak:
    """Read with a daemon in a control group of `limit` bytes.

    Raises OSError if the group cannot be created, or if a read fails.
    """
    with memory_group(limit) as group, mounted_in(group, source, place) as mount:
        total = work(mount)
        if mount.process.poll() is not None or group.killed():
            raise OSError(f"the daemon did not survive: {group.killed()} processes killed")
        return Peak(round(peak(mount), 1), round(group.most() / MB, 1), total)


def cgroup(registry: Registry, directory: Path, size: int = SIZE_MB * MB) -> Iterator[Sample]:
    """The patterns, for scripts/bench."""
    try:
        with memory_group(LIMIT_MB * MB):
            pass
    except OSError as error:
        print(f"skipped: a large image in {LIMIT_MB} MB ({error})", file=sys.stderr)
        return
    push_large_image(registry, "bench/large", size)
    for name, work in PATTERNS.items():
        with tempfile.TemporaryDirectory(dir=directory) as place:
            found = measure(f"{registry.host}/bench/large:v1", Path(place), work)
        yield Sample(f"{LIMIT_MB} MB: {name}", found.resident, "MB", most=GOAL_MB)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("patterns", nargs="*", help="words in the names of the patterns")
    options.add_argument(
        "--size", type=int, default=SIZE_MB, metavar="MB", help="of the image (%(default)s)"
    )
    options.add_argument(
        "--limit", type=int, default=LIMIT_MB, metavar="MB", help="of the group (%(default)s)"
    )
    given = options.parse_args()
    worst = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="ocifs-bench-") as name,
        running_registry(Path(name)) as registry,
    ):
        packed = push_large_image(registry, "bench/large", given.size * MB)
        print(
            f"{given.size} MB in layers, {packed // MB} MB packed, a group of {given.limit} MB",
            flush=True,
        )
        for pattern, work in PATTERNS.items():
            if given.patterns and not any(word in pattern for word in given.patterns):
                continue
            with tempfile.TemporaryDirectory(dir=name) as place:
                began = time.monotonic()
                found = measure(
                    f"{registry.host}/bench/large:v1", Path(place), work, given.limit * MB
                )
            seconds = time.monotonic() - began
            memory = f"{found.resident:8.1f} MB resident, {found.charged:6.1f} MB charged"
            print(
                f"{memory}, {found.total // MB:5} MB read, {seconds:5.0f} s  {pattern}", flush=True
            )
            worst = max(worst, found.resident)
    return 1 if worst > GOAL_MB else 0


if __name__ == "__main__":
    sys.exit(main())
