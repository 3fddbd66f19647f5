"""Measure a daemon's memory and file descriptors after 10,000, 50,000 and 100,000 opens."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from scripts.bench_sample import Sample
from tests.support.mount import Mounted

COUNTS = (10_000, 50_000, 100_000)
_FORGET = 1_000  # opens between two drops of the kernel's caches


def opens(mount: Mounted, directory: Path) -> Iterator[Sample]:
    """Open and read every small file of a manifest's directory in turn, and look up new names."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    seen: dict[int, tuple[float, int]] = {}
    for number, path in enumerate(itertools.islice(itertools.cycle(files), COUNTS[-1]), 1):
        descriptor = os.open(path, os.O_RDONLY)
        os.pread(descriptor, 64, 0)
        os.close(descriptor)
        if number % _FORGET == 0:
            forget()
        if number in COUNTS:
            seen[number] = state(mount.process.pid)
    first = seen[COUNTS[0]]
    for count in COUNTS[1:]:
        what = f"after {count:,} opens of {len(files)} files"
        yield Sample(
            f"memory {what}",
            seen[count][0],
            "MiB",
            f"after {COUNTS[0]:,}",
            first[0],
            most_ratio=1.05,
        )
        yield Sample(
            f"descriptors {what}",
            seen[count][1],
            "",
            f"after {COUNTS[0]:,}",
            first[1],
            most_ratio=1.0,
        )


def forget() -> None:
    """Drop the kernel's dentries and inodes, so that it sends FORGET to the daemon. Needs root."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    except OSError:
        return


def state(pid: int) -> tuple[float, int]:
    """Resident memory in MiB, and the number of open file descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd"))
