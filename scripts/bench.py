"""Measure ocifs against other programs, with Debian's docker-registry on loopback.

    scripts/bench [--size MIB] [--tags N] [--runs N] [--only NAME] [--json FILE]

Rules that hold here:
- Each figure has a peer's figure from the same run. Targets are set for their ratio.
- Each cold measurement has its own mount and cache.
- The content is compared after the clock has stopped.
- The median of several runs is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from scripts.bench_cached import cached
from scripts.bench_cgroup import cgroup
from scripts.bench_kernel import kernel
from scripts.bench_kinds import kinds
from scripts.bench_lazy import lazy
from scripts.bench_memory import memory
from scripts.bench_million import million
from scripts.bench_names import names
from scripts.bench_opens import opens
from scripts.bench_report import figures, keep, table
from scripts.bench_rootfs import rootfs
from scripts.bench_sample import Sample
from scripts.bench_stalled import stalled
from scripts.bench_starts import demo, helps, starts
from scripts.bench_tasks import tasks
from scripts.bench_wire import wire
from tests.support.mount import Mounted, mounted, run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

MIB = 1 << 20
BIG, MANY = "bench/big", "bench/many"
RANDOM_READS, RANDOM_SIZE = 200, 4096
PUSHERS = 8
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
# skopeo does not compress blobs of this type. The other programs do not compress either.
LAYER_TYPE = "application/octet-stream"
# With these colours, as in Debian's dircolors, `ls --color` calls stat for the target of each link.
COLORS = "ln=01;36:or=40;31;01:mi=00"
REQUEST = re.compile(rb'"[A-Z]+ \S+ HTTP/1\.1" ')


@dataclass(frozen=True)
class World:
    """A registry with a large blob in one repository and many tags in another."""

    registry: Registry
    directory: Path
    digest: str
    size: int
    tags: int

    def requests(self) -> int:
        """The number of requests that the registry has answered."""
        return len(REQUEST.findall(self.registry.log.read_bytes()))


def timed(*command: str, output: Path | None = None) -> tuple[float, float]:
    """Run a program, and return its seconds and its peak memory in MiB.

    The peak is at least that of this process, because the child starts as a copy of it.
    """
    with (output or Path(os.devnull)).open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, env={**os.environ, "LS_COLORS": COLORS})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


@contextlib.contextmanager
def fresh(world: World) -> Iterator[Mounted]:
    """A mount of the registry with an empty cache."""
    with tempfile.TemporaryDirectory(dir=world.directory) as place:
        cache = Path(place, "cache")
        cache.mkdir(mode=0o700)
        with mounted(world.registry.host, Path(place, "mnt"), cache) as mount:
            yield mount


def kept(mount: Mounted, kind: str, digest: str) -> Path:
    """The path of a cached blob. `kind` is `blobs` or `partial`."""
    return mount.cache / "ocifs" / "v1" / kind / digest.replace(":", "/")


def settle(world: World) -> None:
    """Give each program the same start: no dirty pages, and the blob in the page cache."""
    encoded = world.digest.partition(":")[2]
    os.sync()
    timed(
        "cat",
        f"{world.directory}/data/docker/registry/v2/blobs/sha256/{encoded[:2]}/{encoded}/data",
    )


def drop_caches() -> bool:
    """Empty the page cache. Returns False without the permission."""
    os.sync()
    with contextlib.suppress(OSError):
        return bool(DROP_CACHES.write_text("1"))
    return False


def sequential(world: World) -> Iterator[Sample]:
    """A large blob from end to end: cold, and again from the cache."""
    # A warm-up: the first use of a virtual machine's memory is slow. The first read of 1 GiB took
    # 7.8 s, the third 3.8 s.
    curl_and_sum(world)
    with fresh(world) as mount:
        path, place = mount.path / BIG / "_blobs" / world.digest, kept(mount, "blobs", world.digest)
        settle(world)
        began = time.perf_counter()
        ours = timed("cat", str(path))[0]
        until_kept = wait_for(place) - began
        # VmHWM is the peak of the resident set, in KiB (proc_pid_status(5)).
        peak = (
            Path(f"/proc/{mount.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        )
        check_digest(world, path)
        again = list(second_read(path, place))
    curl = curl_and_sum(world)
    skopeo, skopeo_memory = skopeo_copy(world)
    yield Sample("cold read, verified", ours, "s", "curl -o; sha256sum", curl, most_ratio=1.0)
    yield Sample("cold read, verified", ours, "s", "skopeo copy", skopeo, most_ratio=0.75)
    yield Sample("cold read, until synced to disk", until_kept, "s", "skopeo copy", skopeo)
    yield from again
    yield Sample(
        "peak memory, large read",
        int(peak) / 1024,
        "MiB",
        "skopeo copy",
        skopeo_memory,
        most=100e6 / MIB,
    )


def second_read(path: Path, place: Path) -> Iterator[Sample]:
    """Read the cached blob from the disk, through the mount and directly."""
    if not drop_caches():
        print("skipped: second read (only root may drop the page cache)", file=sys.stderr)
        return
    ours = timed("cat", str(path))[0]
    drop_caches()
    yield Sample(
        "second read, page cache dropped",
        ours,
        "s",
        "cat of the cached file",
        timed("cat", str(place))[0],
    )


def wait_for(place: Path) -> float:
    """Wait for a file, and return the time at which it exists."""
    deadline = time.perf_counter() + 120
    while not place.exists() and time.perf_counter() < deadline:
        time.sleep(0.005)
    place.stat()  # raises if the file was never cached
    return time.perf_counter()


def check_digest(world: World, path: Path) -> None:
    said = subprocess.run(
        ["sha256sum", path], capture_output=True, text=True, check=True
    ).stdout.lstrip("\\")
    if said.split()[0] != world.digest.partition(":")[2]:
        raise RuntimeError(f"{path} has other content than was pushed")


def curl_and_sum(world: World) -> float:
    """The seconds to download the blob and to compute its checksum."""
    with tempfile.TemporaryDirectory(dir=world.directory) as place:
        settle(world)
        target, url = Path(place, "blob"), f"{world.registry.url}/v2/{BIG}/blobs/{world.digest}"
        began = time.perf_counter()
        timed("curl", "-sSf", "--noproxy", "*", "-o", str(target), url)
        check_digest(world, target)
        return time.perf_counter() - began


def skopeo_copy(world: World) -> tuple[float, float]:
    """Copy the image to a layout."""
    with tempfile.TemporaryDirectory(dir=world.directory) as place:
        settle(world)
        source = f"docker://{world.registry.host}/{BIG}:latest"
        options = ("-q", "--preserve-digests", "--src-tls-verify=false")
        ended = timed(
            "skopeo", "--insecure-policy", "copy", *options, source, f"oci:{place}/layout:latest"
        )
        if Path(place, "layout/blobs", world.digest.replace(":", "/")).stat().st_size != world.size:
            raise RuntimeError("skopeo copied other content than was pushed")
        return ended


def random_reads(world: World) -> Iterator[Sample]:
    """Small reads at random offsets in a cold blob, against range requests over one connection."""
    dice = random.Random(world.size)  # the same offsets in every run
    offsets = [dice.randrange(world.size - RANDOM_SIZE) for _ in range(RANDOM_READS)]
    with fresh(world) as mount:
        settle(world)
        before = world.requests()
        began = time.perf_counter()
        file = os.open(mount.path / BIG / "_blobs" / world.digest, os.O_RDONLY)
        ours = [os.pread(file, RANDOM_SIZE, offset) for offset in offsets]
        seconds = time.perf_counter() - began
        os.close(file)
        requests = world.requests() - before
        fetched = kept(mount, "partial", world.digest).stat().st_blocks * 512
    with httpx.Client(trust_env=False) as client:
        url = f"{world.registry.url}/v2/{BIG}/blobs/{world.digest}"
        began = time.perf_counter()
        theirs = [
            client.get(url, headers={"Range": f"bytes={offset}-{offset + RANDOM_SIZE - 1}"}).content
            for offset in offsets
        ]
        peer = time.perf_counter() - began
    if ours != theirs:
        raise RuntimeError("random reads differ from what the registry serves")
    what = f"{RANDOM_READS} random reads of {RANDOM_SIZE} bytes"
    yield Sample(what, seconds, "s", "the same with httpx", peer)
    yield Sample(
        f"{what}: fetched",
        fetched / 1e6,
        "MB",
        "bytes read",
        RANDOM_READS * RANDOM_SIZE / 1e6,
        most=30,
    )
    yield Sample(f"{what}: requests", requests, "", "the same with httpx", RANDOM_READS)


def listing(world: World) -> Iterator[Sample]:
    """A repository with many tags, listed in three ways, each with its own mount."""
    output = world.directory / "listed"
    before = world.requests()
    peer = timed(
        "skopeo", "list-tags", "--tls-verify=false", f"docker://{world.registry.host}/{MANY}"
    )[0]
    pages = -(-world.tags // 1000)
    peer_requests = world.requests() - before
    for options in ((), ("-l",), ("--color=always",)):
        with fresh(world) as mount:
            before = world.requests()
            seconds = timed("ls", *options, str(mount.path / MANY / "_tags"), output=output)[0]
            requests = world.requests() - before
        lines = [
            line for line in output.read_bytes().splitlines() if not line.startswith(b"total ")
        ]
        if len(lines) != world.tags:
            raise RuntimeError(f"ls shows {len(lines)} tags, {world.tags} were pushed")
        what = " ".join(("ls", *options, f"of {world.tags} tags"))
        yield Sample(what, seconds, "s", "skopeo list-tags", peer, most=3)
        # The catalog is one more request than the pages: it resolves the repository's path.
        yield Sample(
            f"{what}: requests", requests, "", "skopeo list-tags", peer_requests, most=pages + 1
        )


def cached_reads(world: World) -> Iterator[Sample]:
    """A large blob that is cached, read in several ways."""
    with fresh(world) as mount:
        path, place = mount.path / BIG / "_blobs" / world.digest, kept(mount, "blobs", world.digest)
        timed("cat", str(path))
        wait_for(place)
        if not drop_caches():
            print("skipped: cached reads (only root may drop the page cache)", file=sys.stderr)
            return
        yield from cached(path, place)


def mounting(world: World) -> Iterator[Sample]:
    """The time until the mount command returns, which is when the mount answers."""
    with tempfile.TemporaryDirectory(dir=world.directory) as place:
        point, cache = Path(place, "mnt"), Path(place, "cache")
        point.mkdir()
        cache.mkdir(mode=0o700)
        began = time.perf_counter()
        run_ocifs("mount", world.registry.host, str(point), cache=cache)
        seconds = time.perf_counter() - began
        usable = os.path.ismount(point)
        run_ocifs("umount", str(point), cache=cache)
        if not usable:
            raise RuntimeError("ocifs mount returned before its mount point was mounted")
    peer = timed(sys.executable, "-c", "import click, httpx, pyfuse3, trio")[0]
    yield Sample("command to usable mount", seconds, "s", "import of its libraries", peer, most=0.6)


def opening(world: World) -> Iterator[Sample]:
    """Many opens of the files of one manifest."""
    with fresh(world) as mount:
        yield from opens(mount, mount.path / MANY / "_manifests" / "v0")


GROUPS: dict[str, Callable[[World], Iterator[Sample]]] = {
    "sequential": sequential,
    "random": random_reads,
    "cached": cached_reads,
    "list": listing,
    "mount": mounting,
    "opens": opening,
    "kinds": lambda _: kinds(),
    "rootfs": lambda world: rootfs(world.registry.url, world.registry.host, world.directory),
    "kernel": lambda world: kernel(world.registry.url, world.registry.host, world.directory),
    "help": lambda _: helps(),
    "starts": lambda world: starts(world.registry.url, world.registry.host, world.directory),
    "demo": lambda _: demo(),
    "lazy": lambda world: lazy(world.registry.host, world.directory),
    "million": lambda world: million(world.directory),
    "memory": lambda world: memory(world.registry, world.directory),
    "cgroup": lambda world: cgroup(world.registry, world.directory),
    "stalled": lambda world: stalled(world.registry, world.directory),
    "tasks": lambda world: tasks(world.registry.url, world.registry.host, world.directory),
    "wire": lambda world: wire(world.directory),
    "names": lambda world: names(world.directory),
}


def push_large(url: str, size: int) -> str:
    """Upload a stream of random bytes and a manifest `latest`, and return the blob's digest."""
    hasher = hashlib.sha256()

    def stream() -> Iterator[bytes]:
        for _ in range(size // MIB):
            piece = os.urandom(MIB)
            hasher.update(piece)
            yield piece

    with httpx.Client(base_url=url, trust_env=False, timeout=120) as client:
        answer = client.post(f"/v2/{BIG}/blobs/uploads/").raise_for_status()
        headers = {"content-type": "application/octet-stream"}
        answer = client.patch(
            answer.headers["location"], content=stream(), headers=headers
        ).raise_for_status()
        digest = f"sha256:{hasher.hexdigest()}"
        place = client.base_url.join(answer.headers["location"]).copy_merge_params(
            {"digest": digest}
        )
        client.put(place).raise_for_status()
    layer = {"mediaType": LAYER_TYPE, "digest": digest, "size": size}
    push_manifest(url, BIG, manifest_of(url, BIG, [layer]), "latest")
    return digest


def manifest_of(
    url: str, repository: str, layers: Sequence[dict[str, object]]
) -> dict[str, object]:
    """Push a config, and return the manifest of an image with these layers."""
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    digest = push_blob(url, repository, config)
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": len(config)},
        "layers": list(layers),
    }


def push_tags(url: str, tags: int) -> None:
    """Push one manifest with many tags."""
    manifest = manifest_of(url, MANY, [])
    headers, body = {"content-type": str(manifest["mediaType"])}, json.dumps(manifest).encode()
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
        ThreadPoolExecutor(PUSHERS) as pool,
    ):

        def put(number: int) -> None:
            client.put(
                f"/v2/{MANY}/manifests/v{number}", content=body, headers=headers
            ).raise_for_status()

        list(pool.map(put, range(tags)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure ocifs against its peers on this machine.")
    parser.add_argument(
        "--size", type=int, default=1024, metavar="MIB", help="of the large blob (%(default)s)"
    )
    parser.add_argument(
        "--tags", type=int, default=10_000, metavar="N", help="of the repository (%(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=1, metavar="N", help="the median is shown (%(default)s)"
    )
    parser.add_argument("--only", choices=GROUPS, help="one group of measurements")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="add the figures to FILE, for scripts/pictures"
    )
    chosen = parser.parse_args()
    wanted = [chosen.only] if chosen.only else list(GROUPS)
    with (
        tempfile.TemporaryDirectory(prefix="ocifs-bench-") as place,
        running_registry(Path(place)) as registry,
    ):
        digest = (
            push_large(registry.url, chosen.size * MIB)
            if {"sequential", "random", "cached"} & {*wanted}
            else ""
        )
        if {"list", "opens"} & {*wanted}:
            push_tags(registry.url, chosen.tags)
        world = World(registry, Path(place), digest, chosen.size * MIB, chosen.tags)
        samples = [
            sample for _ in range(chosen.runs) for name in wanted for sample in GROUPS[name](world)
        ]
        measured = list(figures(samples))
        sizes = f"{chosen.size} MiB, {chosen.tags} tags, {chosen.runs} runs"
        print(f"{sizes}, {os.cpu_count()} processors, loopback")
        print("\n".join(table(measured)))
        if chosen.json:
            keep(chosen.json, measured)


if __name__ == "__main__":
    main()
