"""Merged trees against the kernel: random stacks on real overlayfs mounts, shown by a real mount.

`scripts/soak --overlay` runs for minutes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.layers.overlaid import CannotMount, compare, compare_for

pytestmark = [
    pytest.mark.mount,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can mount overlayfs with its attributes"
    ),
]
STACKS = int(os.environ.get("OCIFS_OVERLAYS", "120"))


@pytest.mark.parametrize("first", range(1, STACKS, 40))
def test_a_stack_is_what_overlayfs_shows(first: int, tmp_path: Path) -> None:
    try:
        found = compare(first, 40, tmp_path)
    except CannotMount as error:
        assert not os.environ.get("CI"), f"overlayfs must be there in CI: {error}"
        pytest.skip(f"overlayfs cannot be mounted here: {error}")
    assert found == []


def test_a_stack_is_what_overlayfs_shows_if_the_kernel_serves_it(tmp_path: Path) -> None:
    try:
        found = compare(1001, 10, tmp_path, erofs=True)
    except CannotMount as error:
        pytest.skip(f"overlayfs cannot be mounted here: {error}")
    assert found == []


def test_stacks_are_compared_until_the_time_is_over() -> None:
    try:
        assert compare_for(0.001, 1, time.monotonic) == (40, [])
    except CannotMount as error:
        pytest.skip(f"overlayfs cannot be mounted here: {error}")
