"""Measure the tasks of a user, against the commands that do the same without ocifs.

    scripts/bench --only tasks

Rules that hold here:
- The image is a Debian with an application, in four releases. The registry is behind a line of
  50 MB/s.
- The registry is mounted before the clock starts, except for the task "mount, read one file".
- Cold tasks start with empty caches. Warm tasks come after a task on the same image.
- Both programs have to print the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.bench_image import line_to
from scripts.bench_sample import Sample
from scripts.recording import push_releases
from tests.support.podman import podman
from tests.support.tools import Tool, tool

RATE = 50e6  # bytes a second
TAGS = ("1.0", "1.1", "1.2", "1.3")
FOUND = "opt/app/helper"  # in the last two releases only
EXPORT = '"$CRANE" --insecure export "$HOST/team/app:$TAG" - '
CONFIGS = 'for tag in $TAGS; do "$CRANE" --insecure config "$HOST/team/app:$tag"; done'
WITH_HELPER = (
    'for tag in $TAGS; do "$CRANE" --insecure export "$HOST/team/app:$tag" - | tar -t'
    ' | grep -q "^$FOUND\\$" && echo "$tag"; done || true'
)
DIFFERENCE = (
    'for tag in 1.0 1.1; do mkdir "$PLACE/$tag"; "$CRANE" --insecure export "$HOST/team/app:$tag" -'
    ' | tar -x -C "$PLACE/$tag" --exclude=./dev --exclude=dev; done;'
    ' cd "$PLACE"; diff -rq --no-dereference -x sample 1.0 1.1 || true'
)


@dataclass(frozen=True)
class Bench:
    """The registry behind its line, the peers, and a directory of one task."""

    host: str
    crane: Tool
    podman: Tool
    place: Path

    def run(self, command: str) -> tuple[float, str]:
        """Run a shell command, and return its seconds and its output."""
        environment = {
            **os.environ,
            **self.podman.environment,
            "XDG_CACHE_HOME": str(self.place),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "CRANE": self.crane.path,
            "HOST": self.host,
            "TAG": "1.0",
            "TAGS": " ".join(TAGS),
            "FOUND": FOUND,
            "PLACE": str(self.place),
        }
        began = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        return time.perf_counter() - began, done.stdout

    def mounted(self, command: str, *, counted: bool = False) -> tuple[float, str]:
        """Mount the registry, run a shell command in the mount, and unmount.

        `counted`: the time includes the mount command.
        """
        (self.place / "mnt").mkdir(exist_ok=True)
        try:
            began, _ = self.run('ocifs mount "$HOST" mnt')
            seconds, output = self.run(f"cd mnt/team && {command}")
            return seconds + began * counted, output
        finally:
            self.run("ocifs umount mnt")


def compared(
    what: str, ours: tuple[float, str], peer: str, theirs: tuple[float, str]
) -> Iterator[Sample]:
    """The sample of a task, after a comparison of the outputs."""
    if sorted(ours[1].split()) != sorted(theirs[1].split()):
        raise RuntimeError(f"{what}: {peer} printed {theirs[1]!r}, ocifs {ours[1]!r}")
    yield Sample(what, ours[0], "s", peer, theirs[0])


def tasks(url: str, host: str, directory: Path) -> Iterator[Sample]:
    """All tasks, cold first."""
    releases = {
        tag: {
            "etc/app.conf": f"release = {tag}\n".encode(),
            **({FOUND: b"helper\n"} if tag in TAGS[2:] else {}),
        }
        for tag in TAGS
    }
    push_releases(url, releases)
    crane = tool("crane", directory / "crane")
    with line_to(host, RATE) as line, podman() as pod:
        for group in (_cold_file, _files, _releases, _names):
            with tempfile.TemporaryDirectory(dir=directory) as place:
                try:
                    yield from group(Bench(line.host, crane, pod, Path(place)))
                finally:
                    pod("image", "unmount", "--all")


def _cold_file(bench: Bench) -> Iterator[Sample]:
    """One file of an image that this machine has never seen, and another file later."""
    read = 'ocifs cat "$HOST/team/app:1.0" rootfs/etc/os-release'
    export = EXPORT + "| tar -xO usr/lib/os-release"
    crane = "crane export | tar"
    theirs = bench.run(export)
    yield from compared("read one file of an image", bench.run(read), crane, theirs)
    pull = (
        'podman pull -q --tls-verify=false "$HOST/team/app:1.0" >/dev/null'
        ' && cat "$(podman image mount "$HOST/team/app:1.0")/usr/lib/os-release"'
    )
    with tempfile.TemporaryDirectory(dir=bench.place) as fresh:
        again = Bench(bench.host, bench.crane, bench.podman, Path(fresh))
        ours = again.mounted("cat app:1.0/rootfs/etc/os-release", counted=True)
    yield from compared(
        "mount, read one file", ours, "podman pull; podman image mount", bench.run(pull)
    )
    yield from compared("read another file later", bench.run(read), crane, bench.run(export))


def _files(bench: Bench) -> Iterator[Sample]:
    """The names of all files of an image."""
    ours = bench.mounted("find app:1.0/rootfs/ -type f -printf '%P\\n' | wc -l")
    theirs = bench.run(EXPORT + "| tar -tv | grep -c ^[-h]")
    yield from compared("list the files of an image", ours, "crane export | tar t", theirs)


def _releases(bench: Bench) -> Iterator[Sample]:
    """The difference of two releases, first seen and seen before."""
    diff = (
        "cd .. && mkdir -p ../d && cd ../d && ln -sfn ../mnt/team/app:1.0/rootfs 1.0"
        " && ln -sfn ../mnt/team/app:1.1/rootfs 1.1"
        " && diff -rq --no-dereference -x dev -x sample 1.0/ 1.1/ | sed 's#/ #/#g; s#//#/#g'; true"
    )
    ours = bench.mounted(diff)
    theirs = bench.run(DIFFERENCE)
    yield from compared("compare two releases", ours, "crane export | tar x; diff", theirs)


def _names(bench: Bench) -> Iterator[Sample]:
    """Questions about all tags of a repository."""
    ours = bench.mounted(f"ls -d app/_tags/*/rootfs/{FOUND} | cut -d/ -f3")
    theirs = bench.run(WITH_HELPER)
    yield from compared("find the tags that have a file", ours, "crane export | tar t", theirs)
    ours = bench.mounted("cat app/_tags/*/config.json")
    theirs = bench.run(CONFIGS)
    yield from compared("read the configs of all tags", ours, "crane config", theirs)
