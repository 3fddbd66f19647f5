"""The crowd: several mounts on one cache that is too small for what is read, each with processes of
many readers; every byte is compared.

Rules that hold here: readers are processes of their own that know the content by its seed; no fault
is injected but the bound of the cache, so every error is a failure; at the end nothing is under
way, no file of any process lies about, and the daemons hold no more descriptors and little more
memory than after their first reads.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ocifs.oci import mediatype
from ocifs.settings import NetworkSettings
from tests.support.mount import Mounted, mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

BLOBS, BLOB = 120, 1_000_000
WINDOW, STEP = (
    12,
    1.0,
    # blobs that are read at a time, and seconds after which the next one takes the place of the
    # first
)
CACHE = "20M"  # for 120 MB of blobs; one that nobody has read for a minute may go
MOUNTS, PROCESSES, READERS = 4, 8, 16
# What a daemon may hold more than at rest: three descriptors an open blob (its content, its map,
# the map in memory), and its connections.
DESCRIPTORS = BLOBS * 3 + NetworkSettings().connections
GROWTH = 40 * 1024  # KiB that a daemon may grow between its first reads and its last

# Runs in a process of its own: threads that read parts of files by chance, and compare. What they
# read wanders through all there is.
READER = """
import os, random, sys, threading, time
seed, seconds, readers, count, size, window = (int(word) for word in sys.argv[1:7])
step, paths = float(sys.argv[7]), sys.argv[8:]
contents = [random.Random(number).randbytes(size) for number in range(count)]
end = time.monotonic() + seconds
done, wrong = [0] * readers, []
def read(number):
    chance = random.Random(seed * 1000 + number)
    while time.monotonic() < end and len(wrong) < 5:
        which = (int(time.monotonic() / step) + chance.randrange(window)) % count
        start = chance.randrange(size)
        length = chance.choice((1, 4096, 200_000, size))
        try:
            descriptor = os.open(f"{chance.choice(paths)}/layers/{which}/blob", os.O_RDONLY)
            try:
                if chance.random() < 0.5:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                found = os.pread(descriptor, length, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            wrong.append(str(error))
            continue
        expected = contents[which][start : start + length]
        if found != expected[: len(found)] or not found:
            wrong.append(f"blob {which} at {start}: {len(found)} bytes are other ones")
        done[number] += len(found)
threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(done))
print("\\n".join(wrong))
"""


@dataclass
class Crowd:
    """What was read, and what was wrong."""

    seconds: float
    compared: int = 0
    fetched: int = 0
    kept: int = 0  # bytes that the cache has at the end
    memory_kib: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def line(self) -> str:
        return json.dumps(asdict(self))


def crowd(seconds: int, place: Path, processes: int = PROCESSES) -> Crowd:
    """One run in a directory of its own."""
    (place / "registry").mkdir()
    with running_registry(place / "registry") as registry, ExitStack() as stack:
        fill(registry)
        mounts = [
            stack.enter_context(
                mounted(registry.host, place / f"mnt{n}", place, ["--cache-size", CACHE])
            )
            for n in range(MOUNTS)
        ]
        found = Crowd(seconds)
        paths = [str(mount.path / "crowd/app/_manifests/v1") for mount in mounts]
        read(found, paths, 2, processes)
        before = [held(mount) for mount in mounts]
        read(found, paths, seconds, processes)
        found.fetched = sum(r["bytes_received"] for mount in mounts for r in settled(mount, found))
        for mount, (memory, descriptors) in zip(mounts, before, strict=True):
            now = held(mount)
            found.memory_kib.append(now[0])
            found.descriptors.append(now[1])
            if now[0] > memory + GROWTH or now[1] > descriptors + DESCRIPTORS:
                found.failures.append(
                    f"a daemon grew from {memory} KiB, {descriptors} descriptors to {now}"
                )
    found.kept = (
        sum(path.stat().st_blocks for path in (place / "ocifs").rglob("*") if path.is_file()) * 512
    )
    found.failures += [f"{path} was left behind" for path in leftovers(place / "ocifs")]
    return found


def fill(registry: Registry) -> None:
    layers = [
        {
            "mediaType": mediatype.OCTET_STREAM,
            "digest": push_blob(registry.url, "crowd/app", random.Random(number).randbytes(BLOB)),
            "size": BLOB,
        }
        for number in range(BLOBS)
    ]
    config = {
        "mediaType": mediatype.OCI_EMPTY,
        "digest": push_blob(registry.url, "crowd/app", b"{}"),
        "size": 2,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": config,
        "layers": layers,
    }
    push_manifest(
        registry.url, "crowd/app", {**manifest, "artifactType": "application/x.crowd"}, "v1"
    )


def read(found: Crowd, paths: list[str], seconds: int, processes: int) -> None:
    """Let the readers read."""
    numbers = [str(each) for each in (seconds, READERS, BLOBS, BLOB, WINDOW, STEP)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(seed), *numbers, *paths],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(processes)
    ]
    for process in running:
        said = process.communicate(timeout=seconds + 120)[0].splitlines()
        found.compared += int(said[0])
        found.failures += [line for line in said[1:] if line]


def settled(mount: Mounted, found: Crowd) -> Iterator[dict[str, Any]]:
    """What a mount says of its registries, once nothing is under way."""
    deadline = time.monotonic() + 30
    while True:
        registries: list[dict[str, Any]] = json.loads(
            (mount.path / ".ocifs/status.json").read_bytes()
        )["registries"]
        if not any(registry["fetches"] for registry in registries):
            break
        if time.monotonic() > deadline:
            found.failures.append(f"fetches go on that nobody waits for: {registries}")
            break
        time.sleep(0.2)  # read-ahead that was begun ends by itself
    yield from registries


def held(mount: Mounted) -> tuple[int, int]:
    """A daemon's resident memory in KiB, and how many descriptors it has open."""
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]), len(
        os.listdir(f"/proc/{mount.process.pid}/fd")
    )


def leftovers(cache: Path) -> list[Path]:
    """Files that only a process that writes them may have."""
    return [
        path
        for path in cache.rglob("*")
        if path.name.startswith(".tmp-") or path.name.endswith(".private")
    ]
