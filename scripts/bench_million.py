"""Measure the memory for listing an image of a million entries, without and with a cached index.

    scripts/bench --only million

Rules that hold here:
- Each listing has its own mount, of an image layout on disk.
- The figure is the peak of resident memory.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.bench_rootfs import peak
from scripts.bench_sample import Sample
from tests.layers.test_memory import headers, layout_of, squeezed
from tests.support.mount import mounted

ENTRIES = 1_000_000
BOUND = 250e6 / (1 << 20)


def million(directory: Path) -> Iterator[Sample]:
    """The first and the second listing."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        source = layout_of(Path(place, "layout"), squeezed(headers(ENTRIES)))
        for when in ("first", "later"):
            with mounted(source, Path(place, "mnt"), Path(place, "cache")) as mount:
                command = ["find", mount.path / "rootfs", "-type", "f", "-printf", "."]
                found = subprocess.run(command, capture_output=True, check=True).stdout
                assert len(found) == ENTRIES
                yield Sample(
                    f"a million entries, {when} listing: peak memory",
                    peak(mount),
                    "MiB",
                    "the limit",
                    BOUND,
                    most_ratio=1,
                )
