"""Measure the time to the first output: help, a listing of tags, and the demo in a fresh clone.

Rules that hold here:
- The two programs alternate, and the medians of HELPS runs count.
- The clone has no .venv, and pip has no cache: libraries are downloaded and pyfuse3 is compiled.
- The system packages are those of the machine.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ocifs.oci import mediatype
from scripts.bench_sample import Sample
from tests.support.push import push_blob, push_manifest
from tests.support.tools import tool

ROOT = Path(__file__).parents[1]
HELPS = 20
HELP_SECONDS, START_SECONDS, DEMO_SECONDS = 0.15, 0.25, 90


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


def starts(url: str, host: str, directory: Path) -> Iterator[Sample]:
    """The processor time of a listing of tags, beside crane and a Python that does nothing."""
    repository = "bench/starts"
    config = push_blob(url, repository, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_EMPTY, "digest": config, "size": 2},
        "layers": [],
    }
    push_manifest(url, repository, manifest, "1")
    program = Path(sys.executable).parent / "ocifs"
    crane = str(tool("crane", directory).path)
    commands: dict[str, list[str]] = {
        "ocifs": [str(program), "ls", f"{host}/{repository}", "_tags"],
        "crane ls": [crane, "ls", "--insecure", f"{host}/{repository}"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(HELPS):
        for name, command in commands.items():
            seconds[name].append(_processor_seconds(command, directory))
    least = {name: min(values) for name, values in seconds.items()}
    for peer in ("crane ls", "python -c pass"):
        most = START_SECONDS if peer == "python -c pass" else None
        what = "ocifs ls REPOSITORY _tags: processor time"
        yield Sample(what, least["ocifs"], "s", peer, least[peer], most=most)


def _processor_seconds(command: list[str], directory: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(directory / "starts")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
