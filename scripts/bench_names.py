"""Measure names at scale: a registry with many repositories, one of them with many tags.

    scripts/bench --only names

Rules that hold here:
- The registry is a process of its own (tests/support/manynames.py), and lists pages of 1,000 names.
- Each measurement has its own mount and cache. The second lookup uses the names of the first.
- Requests are counted by the registry.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.bench_image import KEPT
from scripts.bench_sample import Sample
from tests.support.manynames import MANY_TAGS, PAGE, many_names
from tests.support.mount import mounted

NAMES = 100_000
PAGES = NAMES // PAGE


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def listed(path: Path) -> None:
    """List a directory without attributes, and check the number of names."""
    lines = subprocess.run(["ls", "-f", path], capture_output=True, check=True).stdout.count(b"\n")
    if lines < NAMES:
        raise RuntimeError(f"{path} lists {lines} names")


def names(directory: Path) -> Iterator[Sample]:
    """Lookups and listings of repositories and tags."""
    crane = next(iter(sorted(KEPT.glob("crane-v*/crane"))), None)
    with (
        many_names(NAMES) as server,
        mounted(server.host, directory / "names-mnt", directory / "names-cache") as mount,
    ):
        root = mount.path
        server.requests()
        first = timed((root / "group050" / "repo00050000").stat)
        asked = server.requests()
        yield Sample("lookup of one of 100,000 repositories", first, "s", most=0.5)
        yield Sample("lookup of one of 100,000 repositories: requests", asked, "", most=5)
        tag = root / MANY_TAGS / "_tags" / "v50000"
        first = timed(tag.lstat)
        asked = server.requests()
        yield Sample("lookup of one of 100,000 tags", first, "s", most=0.5)
        yield Sample("lookup of one of 100,000 tags: requests", asked, "", most=5)
        seconds = timed(lambda: listed(root / MANY_TAGS / "_tags"))
        asked = server.requests()
        peers = [("skopeo list-tags", ["skopeo", "list-tags", "--tls-verify=false"], "docker://")]
        if crane is not None:
            peers.append(("crane ls", [str(crane), "ls", "--insecure"], ""))
        for name, command, scheme in peers:
            source = f"{scheme}{server.host}/{MANY_TAGS}"
            peer = timed(
                lambda run=[*command, source]: subprocess.run(run, check=True, capture_output=True)  # type: ignore[misc]
            )
            yield Sample("ls of 100,000 tags", seconds, "s", name, peer)
        yield Sample("ls of 100,000 tags: requests", asked, "", "pages", PAGES, most=PAGES + 2)
        again = timed(lambda: [(tag.parent / f"v{number}").lstat() for number in range(0, 1000)])
        yield Sample("lookup of 1,000 listed tags", again, "s", most=1.0)
