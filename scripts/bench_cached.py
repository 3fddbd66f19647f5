"""Measure reads of a cached blob with an empty page cache, against `rclone mount` of the same file.

    scripts/bench --only cached

Rules that hold here:
- Every read begins with a dropped page cache. Only root may drop it.
- The programs read the same bytes, each from its own cache on the same disk.
- Without rclone the peers' figures are missing, except one reader for eight readers.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.bench_sample import Sample

RANDOM_READS, RANDOM_SIZE, READERS = 4000, 4096, 8
_START_SECONDS = 30
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@contextlib.contextmanager
def rclone_mount(directory: Path) -> Iterator[Path | None]:
    """A mount of a local directory, cached by rclone as it reads. None without rclone."""
    program = shutil.which("rclone")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as cache:
        options = ("--read-only", "--vfs-cache-mode", "full", "--cache-dir", cache)
        process = subprocess.Popen(
            [program, "mount", *options, str(directory), place],
            env={**os.environ, "RCLONE_CONFIG": "/dev/null"},
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not os.path.ismount(place):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("rclone did not mount the directory")
                time.sleep(0.02)
            yield Path(place)
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def random_seconds(path: Path) -> float:
    """The seconds of many small reads at random offsets, the same ones at each call."""
    size = path.stat().st_size
    dice = random.Random(size)
    offsets = [dice.randrange(size - RANDOM_SIZE) for _ in range(RANDOM_READS)]
    _drop_caches()
    file = os.open(path, os.O_RDONLY)
    try:
        # As a program that maps a file or opens a database. Otherwise the kernel reads ahead.
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        began = time.perf_counter()
        for offset in offsets:
            os.pread(file, RANDOM_SIZE, offset)
        return time.perf_counter() - began
    finally:
        os.close(file)


def sequential_seconds(path: Path, readers: int) -> float:
    """The seconds in which so many programs read the file, each an equal part of it."""
    share = -(-path.stat().st_size // (readers << 20))
    _drop_caches()
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            ["dd", f"if={path}", "of=/dev/null", "bs=1M", f"skip={part * share}", f"count={share}"],
            stderr=subprocess.DEVNULL,
        )
        for part in range(readers)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"dd could not read {path}")
    return time.perf_counter() - began


def cached(path: Path, place: Path) -> Iterator[Sample]:
    """Measure a cached blob. `path` is its file in the mount, and `place` the cached file."""
    with rclone_mount(place.parent) as peer:
        other = None if peer is None else peer / place.name
        ours, eight = sequential_seconds(path, 1), sequential_seconds(path, READERS)
        what = f"{READERS} readers of a cached blob"
        yield Sample(what, eight, "s", "one reader", ours, most_ratio=1.4)
        many = f"{RANDOM_READS} random reads of {RANDOM_SIZE} bytes, cached"
        if other is None:
            yield Sample(many, random_seconds(path), "s")
            return
        sequential_seconds(other, 1)  # fills rclone's cache
        theirs = sequential_seconds(other, 1)
        yield Sample("cached read", ours, "s", "rclone mount", theirs, most_ratio=0.5)
        yield Sample(what, eight, "s", "rclone mount", sequential_seconds(other, READERS))
        seconds = random_seconds(path)
        yield Sample(many, seconds, "s", "rclone mount", random_seconds(other), most_ratio=1.1)


def _drop_caches() -> None:
    os.sync()
    _DROP_CACHES.write_text("1")
