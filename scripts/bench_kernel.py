"""Measure a root filesystem that the kernel serves as EROFS, against FUSE, ext4 and ratarmount.

    scripts/bench --only kernel
    OCIFS_BENCH_NODE=1 scripts/bench --only kernel    with node in place of python3 at 3 MB/s

Rules that hold here:
- Needs root, and a kernel that mounts EROFS.
- The peers are measured on the same tree in the same run.
- `warm` is the second of two runs on one mount.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.bench_image import NODE, TOOLS, debian_tar, line_to, push_gzip
from scripts.bench_rootfs import (
    SLOW,
    Image,
    cache_of_its_own,
    find,
    ratarmount,
    read_all,
    settle,
    shell,
)
from scripts.bench_sample import Sample
from tests.support.mount import Mounted, mounted, run_ocifs

KERNEL = ("--view", "rootfs", "--kernel", "always")
FUSE = ("--view", "rootfs")
RAW = ("--links", "raw")
_SMALL = 3000


def grep(root: Path) -> float:
    """Search three trees, and return the seconds."""
    command = 'cd "$ROOT" && grep -rs --devices=skip nothing-has-this etc usr/lib usr/share || true'
    return shell(command, ROOT=str(root))


def read_small(root: Path) -> float:
    """Read the first 3,000 files below 16 KiB, and return the seconds."""
    command = (
        'find "$ROOT" -type f -size -16k -print0 | sort -z | sed -z "${COUNT}q"'
        " | xargs -0 cat >/dev/null || true"
    )
    return shell(command, ROOT=str(root), COUNT=str(_SMALL))


def requests(mount: Mounted) -> int:
    """The requests of the kernel that the daemon has answered so far."""
    done = run_ocifs("status", "--json", str(mount.path), cache=mount.cache)
    operations: Mapping[str, int] = json.loads(done.stdout)[0]["status"]["operations"]
    return sum(operations.values())


@contextlib.contextmanager
def unpacked(image: Image, directory: Path) -> Iterator[Path]:
    """The same tree on the disk of `directory`."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        subprocess.run(["tar", "-C", place, "-xf", image.tar], check=True)
        yield Path(place)


def kernel(url: str, host: str, directory: Path) -> Iterator[Sample]:
    """All measurements of mounts that the kernel serves."""
    tar = debian_tar(TOOLS)
    image = Image(host, "bench/debian", push_gzip(url, "bench/debian", tar), tar)
    source = f"{host}/{image.repository}:latest"
    with cache_of_its_own(directory) as cache:
        with mounted(source, cache.parent / "mnt", cache, KERNEL) as mount:
            find(mount.path)
        settle(image)
        began = time.perf_counter()
        with mounted(source, cache.parent / "mnt", cache, KERNEL) as mount:
            yield Sample("known image: until the mount answers", _since(began), "s", "1 s", 1.0, 1)
            yield from _names(mount, source, image, cache, directory)
        yield from _everything(source, image, cache)
        node = "node" if os.environ.get("OCIFS_BENCH_NODE") else ""
        if node:
            tar = debian_tar(NODE)
            image = Image(host, "bench/node", push_gzip(url, "bench/node", tar), tar)
        yield from _program(image, cache, [node or "python3", "-c" if not node else "-v"])


def _since(began: float) -> float:
    return time.perf_counter() - began


def _names(
    mount: Mounted, source: str, image: Image, cache: Path, directory: Path
) -> Iterator[Sample]:
    before = requests(mount)
    find(mount.path)
    yield Sample("find with all attributes: requests", requests(mount) - before, "", most=0)
    with (
        unpacked(image, directory) as disk,
        mounted(source, cache.parent / "fuse", cache, FUSE) as fuse,
    ):
        walks = (("find with all attributes", find), ("grep -r", grep), ("small files", read_small))
        for what, walk in walks:
            ours, theirs, by_fuse = (
                min(walk(root) for _ in range(4)) for root in (mount.path, disk, fuse.path)
            )
            most, most_of_fuse = (1.2, 0.25) if walk is find else (1.5, None)
            yield Sample(f"{what}, warm", ours, "s", "ext4", theirs, most_ratio=most)
            yield Sample(f"{what}, warm", ours, "s", "by FUSE", by_fuse, most_ratio=most_of_fuse)


def _everything(source: str, image: Image, cache: Path) -> Iterator[Sample]:
    with mounted(source, cache.parent / "mnt", cache, KERNEL) as mount:
        before = requests(mount)
        ours = read_all(mount.path)
        count = requests(mount) - before
    with mounted(source, cache.parent / "mnt", cache, FUSE) as mount:
        yield Sample("read every file by EROFS", ours, "s", "by FUSE", read_all(mount.path))
    yield Sample("read every file by EROFS: requests", count, "", "the limit", 400, most_ratio=1)
    with ratarmount(image) as theirs:
        if theirs is not None:
            yield Sample(
                "read every file by EROFS", ours, "s", "ratarmount", theirs[1], most_ratio=0.5
            )


def _program(image: Image, cache: Path, words: list[str]) -> Iterator[Sample]:
    """The bytes that a mapped program fetches, when only the index is cached."""
    command = [*words, *(["pass"] if words[-1] == "-c" else [])]
    fetched = {}
    for what, options in (("kernel", KERNEL), ("fuse", FUSE)):
        with line_to(image.host, SLOW) as line:
            source = f"{line.host}/{image.repository}:latest"
            with mounted(source, cache.parent / "mnt", cache, [*options, *RAW]) as mount:
                os.listdir(mount.path)
            for kind in ("blobs", "partial", "sums"):
                subprocess.run(["rm", "-rf", cache / "ocifs/v1" / kind], check=True)
            with mounted(source, cache.parent / "mnt", cache, [*options, *RAW]) as mount:
                before = line.received
                subprocess.run(
                    ["chroot", mount.path, *command], check=True, stdout=subprocess.DEVNULL
                )
                fetched[what] = (line.received - before) / 1e6
    yield Sample(
        f"chroot {words[0]} at 3 MB/s: fetched",
        fetched["kernel"],
        "MB",
        "by FUSE",
        fetched["fuse"],
        most_ratio=1,
    )
