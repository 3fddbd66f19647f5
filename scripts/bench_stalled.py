"""Measure reads of one host while many readers of another host are stuck.

    scripts/bench --only stalled

Rules that hold here:
- The stuck host accepts connections and stays silent. Each reader waits in the kernel before the
  clock starts, and is stuck until it stops.
- Each read of the other host is of a blob that is not cached.
- The slowest of the reads counts.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.bench_memory import push_blobs
from scripts.bench_sample import Sample
from tests.support.faultproxy import fault_proxy
from tests.support.mount import mounted, wait_until_blocked
from tests.support.registry import Registry

STUCK, READS, SIZE = 20, 20, 200_000
MOST_SECONDS = 1.0
STUCK_NAME, OTHER_NAME = "bench/stuck", "bench/other"
# The kernel's own limit of requests in the background, which only root may raise.
NOT_RAISED = "import ocifs.fuse.background as b\nb.raise_limit = lambda device: b.DEFAULT\n"
PATIENT = ("--timeout", "200", "--max-wait", "200")


@contextmanager
def stuck_readers(paths: list[Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that are blocked in read(2)."""
    readers = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL) for path in paths]
    try:
        for reader in readers:
            wait_until_blocked(reader)
        yield readers
    finally:
        for reader in readers:
            reader.kill()
        for reader in readers:
            reader.wait(60)


def slowest(registry: Registry, place: Path, environment: dict[str, str]) -> float:
    """The seconds of the slowest read of one host while all readers of another one are stuck."""
    with ExitStack() as stack:
        proxy = stack.enter_context(fault_proxy(registry.host))
        hosts = [proxy.host, registry.host]
        mount = stack.enter_context(
            mounted(hosts, place / "mnt", place / "cache", PATIENT, environment)
        )
        stuck, other = (
            [
                mount.path / host / f"{name}:v1" / "layers" / str(number) / "blob"
                for number in range(count)
            ]
            for host, name, count in (
                (proxy.host, STUCK_NAME, STUCK),
                (registry.host, OTHER_NAME, READS),
            )
        )
        for path in (*stuck, *other):
            path.stat()
        proxy.fault = "silent"
        readers = stack.enter_context(stuck_readers(stuck))
        seconds = []
        for path in other:
            began = time.perf_counter()
            if len(path.read_bytes()) != SIZE:
                raise RuntimeError(f"{path} has other content than was pushed")
            seconds.append(time.perf_counter() - began)
        if any(reader.poll() is not None for reader in readers):
            raise RuntimeError("a reader of the silent host was not stuck")
        return max(seconds)


def stalled(registry: Registry, directory: Path) -> Iterator[Sample]:
    """The slowest read, with a raised limit of background requests and with the kernel's."""
    dice = random.Random(2)
    push_blobs(registry, STUCK_NAME, [dice.randbytes(SIZE) for _ in range(STUCK)])
    push_blobs(registry, OTHER_NAME, [dice.randbytes(SIZE) for _ in range(READS)])
    what = f"slowest of {READS} reads, {STUCK} readers of another host stuck"
    for limit in ("raised", "the kernel's own"):
        with tempfile.TemporaryDirectory(dir=directory) as name:
            place, environment = Path(name), dict(os.environ)
            if limit != "raised":
                (place / "sitecustomize.py").write_text(NOT_RAISED)
                environment["PYTHONPATH"] = name
            seconds = slowest(registry, place, environment)
        yield Sample(f"{what}, limit {limit}", seconds, "s", most=MOST_SECONDS)
