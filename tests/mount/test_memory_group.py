"""A daemon in a control group of 150 MB reads an image completely and survives.

`scripts.bench_cgroup` does it with a larger image.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench_cgroup import (
    LIMIT_MB,
    MB,
    blobs_side_by_side,
    files_below,
    mounted_in,
    push_large_image,
    shuffled,
    side_by_side,
)
from scripts.bench_memory import GOAL_MB, peak
from tests.support.memorygroup import memory_group
from tests.support.registry import Registry

SIZE = 60 * MB


@pytest.mark.mount
@pytest.mark.servers
def test_a_daemon_in_150_mb_survives_reading_all_of_an_image(
    registry: Registry, tmp_path: Path
) -> None:
    try:
        with memory_group(LIMIT_MB * MB):
            pass
    except OSError as error:
        pytest.skip(f"needs a control group for memory that can be written: {error}")
    packed = push_large_image(registry, "memory/group", SIZE)
    source = f"{registry.host}/memory/group:v1"
    with memory_group(LIMIT_MB * MB) as group, mounted_in(group, source, tmp_path) as mount:
        total = sum(size for _, size in files_below(mount.path / "rootfs"))
        assert side_by_side(mount) == shuffled(mount) == total > SIZE * 0.9
        assert blobs_side_by_side(mount) == packed
        assert mount.process.poll() is None
        assert group.killed() == 0
        assert peak(mount) < GOAL_MB
        assert (
            group.most() == 0 or group.most() > peak(mount) * MB / 2
        )  # proves that the daemon was in the group
