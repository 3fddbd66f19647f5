"""Measure the time to the first output: `ocifs --help`, and the demo in a fresh clone.

Rules that hold here:
- The two programs alternate, and the medians of HELPS runs count.
- The clone has no .venv, and pip has no cache: libraries are downloaded and pyfuse3 is compiled.
- The system packages are those of the machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.bench_sample import Sample

ROOT = Path(__file__).parents[1]
HELPS = 20
HELP_SECONDS, DEMO_SECONDS = 0.15, 90


def helps() -> Iterator[Sample]:
    """The installed command, against a Python that does nothing."""
    ours, theirs = [], []
    program = Path(sys.executable).parent / "ocifs"
    for _ in range(HELPS):
        ours.append(_seconds(program, "--help"))
        theirs.append(_seconds(sys.executable, "-c", "pass"))
    peer = "python -c pass"
    yield Sample(
        "ocifs --help",
        statistics.median(ours),
        "s",
        peer,
        statistics.median(theirs),
        most=HELP_SECONDS,
    )


def demo() -> Iterator[Sample]:
    """The time of the whole demo, in a fresh clone of the last commit."""
    with tempfile.TemporaryDirectory(prefix="ocifs-bench-") as place:
        subprocess.run(["git", "clone", "--quiet", ROOT, f"{place}/clone"], check=True)
        seconds = _seconds(f"{place}/clone/scripts/demo")
    yield Sample(
        "scripts/demo in a fresh clone", seconds, "s", "the limit", DEMO_SECONDS, most=DEMO_SECONDS
    )


def _seconds(*command: str | Path) -> float:
    environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
