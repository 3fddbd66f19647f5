"""Measure an image's root filesystem: listed cold, listed again, read, and read without the blob.

    scripts/bench --only rootfs
    OCIFS_BENCH_NODE=1 scripts/bench --only rootfs    with `chroot rootfs node -v` at 3 MB/s

Rules that hold here:
- Each cold measurement has its own mount and cache.
- The image is Debian with python3, perl and git, in one gzip layer.
- ratarmount (PyPI) is measured if it is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.bench_image import NODE, TOOLS, compressed, debian_tar, line_to, needs, push_gzip
from scripts.bench_sample import Sample
from tests.support.mount import Mounted, mounted

MIB = 1 << 20
SLOW, GOOD = 3e6, 50e6  # bytes a second
ATTRIBUTES = "%p %y %m %U %G %s %T@ %n %l\\n"


@dataclass(frozen=True)
class Image:
    """An image in a registry, and its layer as a file, compressed and uncompressed."""

    host: str
    repository: str
    digest: str
    tar: Path


def shell(command: str, **variables: str) -> float:
    """Run a pipeline, and return its seconds."""
    began = time.perf_counter()
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        check=True,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def settle(image: Image) -> None:
    """Give each program the same start: no dirty pages, and the served layer in the page cache."""
    os.sync()
    url = f"http://{image.host}/v2/{image.repository}/blobs/{image.digest}"
    shell('curl -sSf --noproxy "*" -o /dev/null "$URL"', URL=url)


def find(root: Path) -> float:
    """Run `find` with all attributes, and return its seconds."""
    return shell('find "$ROOT" -printf "$FORM" >/dev/null', ROOT=str(root), FORM=ATTRIBUTES)


def read_all(root: Path) -> float:
    """Read every file completely in the order of the listing, and return the seconds."""
    return shell('find "$ROOT" -type f -print0 | xargs -0 cat >/dev/null', ROOT=str(root))


@contextlib.contextmanager
def cache_of_its_own(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        cache = Path(place, "cache")
        cache.mkdir(mode=0o700)
        yield cache


@contextlib.contextmanager
def mount_of(image: Image, cache: Path, host: str = "") -> Iterator[Mounted]:
    source = f"{host or image.host}/{image.repository}:latest"
    with mounted(source, cache.parent / "mnt", cache) as mount:
        yield mount


def first_look(image: Image, directory: Path) -> Iterator[Sample]:
    """The first listing, with a local registry and at the rate of a good internet connection."""
    needs("skopeo", "umoci", "curl", "igzip")
    yield from _first_looks(image, image.host, directory, "first find rootfs")
    with line_to(image.host, GOOD) as line:
        yield from _first_looks(
            image, line.host, directory, f"first find rootfs at {GOOD / 1e6:.0f} MB/s"
        )


def _first_looks(image: Image, host: str, directory: Path, what: str) -> Iterator[Sample]:
    with cache_of_its_own(directory) as cache, mount_of(image, cache, host) as mount:
        settle(image)
        ours = find(mount.path / "rootfs")
    settle(image)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        copy = (
            "skopeo --insecure-policy copy -q --src-tls-verify=false"
            ' "docker://$SOURCE" "oci:$PLACE/layout:latest"'
        )
        unpack = 'umoci raw unpack --image "$PLACE/layout:latest" "$PLACE/root"'
        peer = shell(f"{copy} && {unpack}", SOURCE=f"{host}/{image.repository}:latest", PLACE=place)
    settle(image)
    url = f"http://{host}/v2/{image.repository}/blobs/{image.digest}"
    pipeline = shell('curl -sSf --noproxy "*" "$URL" | igzip -d | tar t >/dev/null', URL=url)
    yield Sample(what, ours, "s", "skopeo copy; umoci raw unpack", peer, most_ratio=0.25)
    yield Sample(what, ours, "s", "curl | igzip -d | tar t", pipeline, most_ratio=1.3)


def second_mount(image: Image, directory: Path) -> Iterator[Sample]:
    """A mount with a cached index, with the blob and then without it."""
    with cache_of_its_own(directory) as cache:
        with mount_of(image, cache) as mount:
            find(mount.path / "rootfs")
        kept = Path(cache, "ocifs/v1")
        index = sum(path.stat().st_size for path in (kept / "derived").rglob("*") if path.is_file())
        os.sync()
        with mount_of(image, cache) as mount:
            again = find(mount.path / "rootfs")
            memory = peak(mount)
            read = read_all(mount.path / "rootfs")
        with floor(image) as bare:
            least, least_read = find(bare), read_all(bare)
        yield Sample(
            "layer index",
            index / image.tar.stat().st_size * 100,
            "%",
            "the uncompressed tar",
            100.0,
            most=3,
        )
        yield Sample(
            "second mount, peak memory", memory, "MiB", "the limit", 250e6 / MIB, most_ratio=1
        )
        yield Sample(
            "second mount, find rootfs", again, "s", "the same from memory, bare pyfuse3", least
        )
        yield Sample("read every file", read, "s", "the same from memory, bare pyfuse3", least_read)
        with ratarmount(image) as theirs:
            if theirs is None:
                print(
                    "skipped: ratarmount is not installed"
                    " (pip install ratarmount, or set OCIFS_RATARMOUNT to its path)",
                    file=sys.stderr,
                )
                yield Sample("second mount, find rootfs", again, "s", "0.6 s", 0.6, most_ratio=1)
            else:
                yield Sample(
                    "second mount, find rootfs",
                    again,
                    "s",
                    "ratarmount, index cached",
                    theirs[0],
                    most_ratio=1 / 6,
                )
                yield Sample(
                    "second mount, find rootfs",
                    again,
                    "s",
                    "ratarmount, from the layer",
                    theirs[2],
                    most_ratio=1 / 6,
                )
                yield Sample("second mount, find rootfs", again, "s", "0.6 s", 0.6, most_ratio=1)
                yield Sample("read every file", read, "s", "ratarmount", theirs[1], most_ratio=0.25)
        shutil.rmtree(kept / "blobs", ignore_errors=True)
        shutil.rmtree(kept / "partial", ignore_errors=True)
        with line_to(image.host) as line, mount_of(image, cache, line.host) as mount:
            path = a_file_of(mount.path / "rootfs", 100_000)
            line.received = line.requests = 0
            path.read_bytes()
            received, requests = line.received, line.requests
        yield Sample(
            "a file of 100 KB, index cached: fetched",
            received / 1e6,
            "MB",
            "the layer",
            compressed(image.tar).stat().st_size / 1e6,
            most=3,
        )
        yield Sample(
            "a file of 100 KB, index cached: requests", requests, "", "the limit", 10, most_ratio=1
        )


def a_file_of(root: Path, size: int) -> Path:
    """The file with the nearest size."""
    listed = subprocess.run(
        ["find", root, "-type", "f", "-printf", "%s %p\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.partition(" ") for line in listed.stdout.splitlines())
    return Path(min(lines, key=lambda line: abs(int(line[0]) - size))[2])


def peak(mount: Mounted) -> float:
    """The peak of the daemon's resident set, in MiB (VmHWM, proc_pid_status(5))."""
    return (
        int(Path(f"/proc/{mount.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0])
        / 1024
    )


@contextlib.contextmanager
def floor(image: Image) -> Iterator[Path]:
    """The same tree from memory (scripts/bench_floor.py)."""
    with tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.bench_floor", str(image.tar), place]
        )
        try:
            while not os.path.ismount(place):
                if process.poll() is not None:
                    sys.exit("scripts.bench_floor exited before the mount")
                time.sleep(0.05)
            yield Path(place)
        finally:
            subprocess.run(["fusermount3", "-u", place], check=False)
            process.wait(10)


@contextlib.contextmanager
def ratarmount(image: Image) -> Iterator[tuple[float, float, float] | None]:
    """ratarmount's seconds for the same layer on disk.

    They are for `find` and for reading every file with its cached index, and for a mount and `find`
    without the index.
    """
    program = os.environ.get("OCIFS_RATARMOUNT") or shutil.which("ratarmount")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        point = Path(place, "mnt")
        point.mkdir()
        command = [
            program,
            "--index-file",
            f"{place}/index.sqlite",
            str(compressed(image.tar)),
            str(point),
        ]
        runs = []
        for _ in range(2):  # the first mount writes the index
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            try:
                listed = find(point)
                since = time.perf_counter() - began
                runs.append((listed, read_all(point), since))
            finally:
                subprocess.run(["fusermount3", "-u", str(point)], check=True)
                time.sleep(0.5)  # the daemon exits after the unmount
        yield runs[1][0], runs[1][1], runs[0][2]


def chroot_node(image: Image, directory: Path) -> Iterator[Sample]:
    """`chroot rootfs node -v` at 3 MB/s: with an empty cache, and with only the index cached."""
    with cache_of_its_own(directory) as cache:
        for what in ("empty cache", "index cached"):
            with (
                line_to(image.host, SLOW) as line,
                mounted(
                    f"{line.host}/{image.repository}:latest",
                    cache.parent / "mnt",
                    cache,
                    ["--links", "raw"],
                ) as mount,
            ):
                began = time.perf_counter()
                subprocess.run(
                    ["chroot", mount.path / "rootfs", "node", "-v"],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                seconds = time.perf_counter() - began
                received = line.received / 1e6
            for kind in ("blobs", "partial"):
                shutil.rmtree(cache / "ocifs/v1" / kind, ignore_errors=True)
            published = (126.0, 353.0) if what == "empty cache" else (15.0, 29.0)
            peer = "nydus: plain pull" if what == "empty cache" else "nydus: index over gzip"
            yield Sample(
                f"chroot node -v at 3 MB/s, {what}", seconds, "s", peer, published[0], most_ratio=1
            )
            yield Sample(
                f"chroot node -v, {what}: fetched", received, "MB", peer, published[1], most_ratio=1
            )


def rootfs(url: str, host: str, directory: Path) -> Iterator[Sample]:
    """All measurements of root filesystems."""
    image = Image(
        host, "bench/debian", push_gzip(url, "bench/debian", debian_tar(TOOLS)), debian_tar(TOOLS)
    )
    yield from first_look(image, directory)
    yield from second_mount(image, directory)
    if os.environ.get("OCIFS_BENCH_NODE"):
        node = Image(
            host, "bench/node", push_gzip(url, "bench/node", debian_tar(NODE)), debian_tar(NODE)
        )
        yield from chroot_node(node, directory)
