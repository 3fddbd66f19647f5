"""Measure the bytes fetched from lazy layers for one file, and for a program.

    scripts/bench --only lazy
    OCIFS_BENCH_NODE=1 scripts/bench --only lazy    with `chroot rootfs node -v` at 3 MB/s

The peers are the figures that nydus publishes.

Rules that hold here:
- Each format (eStargz, zstd:chunked) has the same Debian of scripts/bench_image.py, written by the
  usual tool for the format.
- Each measurement has its own mount and cache, and counts the bytes from the registry.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.bench_image import KEPT, NODE, TOOLS, compressed, debian_tar, line_to, needs
from scripts.bench_rootfs import SLOW, a_file_of, cache_of_its_own
from scripts.bench_sample import Sample
from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.stars import push_stars

STARS = KEPT / "stars-v0.16.3.1" / "stars"
STARCRANE = KEPT / "starcrane-v0.19.2" / "starcrane"


def push_chunked(host: str, repository: str, tar: Path) -> str:
    """Push the image as zstd:chunked with skopeo, and return its reference."""
    needs("skopeo")
    target = f"{host}/{repository}:chunked"
    form = ("--dest-tls-verify=false", "--dest-compress-format", "zstd:chunked")
    with tempfile.TemporaryDirectory() as place:
        layout = make_layout(Path(place, "layout"), [tar.read_bytes()])
        command = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            *form,
            f"oci:{layout}:v1",
            f"docker://{target}",
        ]
        subprocess.run(command, check=True)
    return target


def push_starred(host: str, repository: str, tar: Path) -> str:
    """Push the image as eStargz with go-containerregistry, and return its reference."""
    target = f"{host}/{repository}:starred"
    command = [str(STARCRANE), "append", "--insecure", "-t", target, "--new_layer", str(tar)]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "GGCR_EXPERIMENT_ESTARGZ": "1"}
    )
    return target


def push_small(host: str, repository: str, tar: Path) -> str:
    """Push the image as eStargz with chunks of 1 MiB, and return its reference.

    It is written with stargz-snapshotter's package, as `ctr-remote --estargz-chunk-size` does.
    """
    with tempfile.TemporaryDirectory() as place:
        return (
            f"{host}/{push_stars(f'http://{host}', repository, [tar], Path(place), chunk=1 << 20)}"
        )


FORMS: dict[str, Callable[[str, str, Path], str]] = {
    "zstd:chunked": push_chunked,
    "eStargz": push_starred,
    "eStargz in chunks of 1 MiB": push_small,
}
PROGRAMS = {push_starred: STARCRANE, push_small: STARS}


def forms() -> Iterator[tuple[str, Callable[[str, str, Path], str]]]:
    for name, push in FORMS.items():
        program = PROGRAMS.get(push)
        if program is not None and not program.exists():
            print(
                f"skipped: {name} (install Go, and run scripts/tools {program.name})",
                file=sys.stderr,
            )
        else:
            yield name, push


def one_file(host: str, source: str, size: float, form: str, place: Path) -> Iterator[Sample]:
    """A file of about 100 KB, cold. Its path was found with another mount."""
    path = source.partition("/")[2]
    with cache_of_its_own(place) as cache, mounted(source, cache.parent / "mnt", cache) as mount:
        wanted = a_file_of(mount.path / "rootfs", 100_000).relative_to(mount.path)
    with (
        cache_of_its_own(place) as cache,
        line_to(host) as line,
        mounted(f"{line.host}/{path}", cache.parent / "mnt", cache) as mount,
    ):
        (mount.path / wanted).read_bytes()
        received, requests = line.received, line.requests
    what = f"a file of 100 KB, {form}, cold"
    yield Sample(f"{what}: fetched", received / 1e6, "MB", "the layer as gzip", size / 1e6, most=3)
    yield Sample(f"{what}: requests", requests, "", "the limit", 10, most_ratio=1)


def node(host: str, source: str, form: str, place: Path) -> Iterator[Sample]:
    """`chroot rootfs node -v` over a slow connection, with an empty cache."""
    path = source.partition("/")[2]
    with (
        cache_of_its_own(place) as cache,
        line_to(host, SLOW) as line,
        mounted(f"{line.host}/{path}", cache.parent / "mnt", cache, ["--links", "raw"]) as mount,
    ):
        seconds = _node(mount.path / "rootfs")
        received = line.received / 1e6
    peer = "nydus: its own format"
    yield Sample(f"chroot node -v at 3 MB/s, {form}", seconds, "s", peer, 11, most_ratio=1)
    yield Sample(f"chroot node -v, {form}: fetched", received, "MB", peer, 21, most_ratio=1)


def _node(root: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["chroot", root, "node", "-v"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def lazy(host: str, directory: Path) -> Iterator[Sample]:
    """All measurements of lazy layers."""
    for form, push in forms():
        tar = debian_tar(TOOLS)
        with tempfile.TemporaryDirectory(dir=directory) as place:
            source = push(host, "bench/debian", tar)
            yield from one_file(host, source, compressed(tar).stat().st_size, form, Path(place))
            if os.environ.get("OCIFS_BENCH_NODE"):
                yield from node(host, push(host, "bench/node", debian_tar(NODE)), form, Path(place))
