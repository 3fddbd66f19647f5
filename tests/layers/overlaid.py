"""Creates overlayfs stacks in a mount namespace, and compares them with a mount of ocifs.

python -m tests.layers.overlaid DIRECTORY FIRST COUNT     # creates stacks, as root
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.layers.overlayfs import Stack, make
from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.oracle import Facts, differences, facts
from tests.support.views import root_of

AS_IT_IS = ("--owner", "keep", "--links", "raw")
CANNOT = 77
"""The exit status where overlayfs cannot be mounted."""


def main(directory: str, first: str, count: str) -> int:
    base = Path(directory, "base")
    base.mkdir()
    for seed in range(int(first), int(first) + int(count)):
        try:
            stack = make(seed, base)
        except OSError as error:
            if error.errno == errno.EPERM:
                print(error.strerror, file=sys.stderr)
                return CANNOT
            raise
        Path(directory, str(seed)).write_bytes(pickle.dumps(stack))
    return 0


class CannotMount(Exception):
    """overlayfs cannot be mounted on this machine."""


def compare(first: int, count: int, place: Path, *, erofs: bool = False) -> list[str]:
    """The differences between ocifs and the kernel for the stacks of some seeds, as lines.

    `erofs`: each stack has a mount of its own, as EROFS. Raises CannotMount.
    """
    made, layout = place / "made", place / "layout"
    made.mkdir()
    command = [
        "unshare",
        "--mount",
        sys.executable,
        "-m",
        "tests.layers.overlaid",
        str(made),
        str(first),
        str(count),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        raise CannotMount(done.stderr)
    if done.returncode:
        raise AssertionError(done.stderr)
    truths, listed = {}, []
    for seed in range(first, first + count):
        stack: Stack = pickle.loads((made / str(seed)).read_bytes())
        make_layout(layout, stack.tars, tag=f"s{seed}")
        listed += json.loads((layout / "index.json").read_text())["manifests"]
        truths[seed] = stack.truth
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    found: list[str] = []
    for seed, ours in (_by_kernel if erofs else _by_fuse)(layout, place, list(truths)):
        alone = {path: replace(fact, names=(), nlink=0) for path, fact in ours.items()}
        found += [f"seed {seed}: {line}" for line in differences(alone, truths[seed])]
    return found


def _by_fuse(
    layout: Path, place: Path, seeds: Sequence[int]
) -> Iterator[tuple[int, dict[bytes, Facts]]]:
    with mounted(f"oci:{layout}", place / "mount", place / "cache", AS_IT_IS) as mount:
        for seed in seeds:
            root = mount.path / "_manifests" / f"s{seed}" / "rootfs"
            os.listdir(root)  # until then its attributes are a guess
            yield seed, facts(root)


def _by_kernel(
    layout: Path, place: Path, seeds: Sequence[int]
) -> Iterator[tuple[int, dict[bytes, Facts]]]:
    for seed in seeds:
        source = f"oci:{layout}:s{seed}"
        with root_of("kernel", source, place / "mount", place / "cache", AS_IT_IS) as (root, _):
            yield seed, facts(root)


def compare_for(seconds: float, seed: int, clock: Callable[[], float]) -> tuple[int, list[str]]:
    """Compare stacks until the time is over or one differs; return the number and differences."""
    end, count, batch = clock() + seconds, 0, 40
    while clock() < end:
        with tempfile.TemporaryDirectory(prefix="ocifs-overlay-") as place:
            found = compare(seed + count, batch, Path(place))
        count += batch
        if found:
            return count, found
    return count, []


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
