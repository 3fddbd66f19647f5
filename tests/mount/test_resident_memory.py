"""The resident memory of a mount stays below the documented bound, for all reads.

`scripts.bench_memory` measures more patterns.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ocifs.layers import zstd
from scripts.bench_memory import (
    GOAL_MB,
    at_once,
    blobs_of,
    files_of,
    one_layer,
    peak,
    push_blobs,
    read,
    small_files,
)
from tests.support.mount import mounted
from tests.support.registry import Registry

MIB = 1 << 20
FILES = 3000
BLOBS = 24


@pytest.mark.mount
@pytest.mark.servers
def test_small_files_of_a_zstd_layer_and_blobs_side_by_side(
    registry: Registry, tmp_path: Path
) -> None:
    contents = [bytes([number]) * (3 * MIB) for number in range(BLOBS)]
    push_blobs(registry, "memory/blobs", contents)
    one_layer(lambda: small_files(FILES, 20_000), lambda data: zstd.compress(data, 3), "+zstd")(
        registry, "memory/files"
    )
    with (
        mounted(
            f"{registry.host}/memory/files:v1", tmp_path / "files", tmp_path / "cache"
        ) as files,
        mounted(
            f"{registry.host}/memory/blobs:v1", tmp_path / "blobs", tmp_path / "cache"
        ) as blobs,
    ):
        found = files_of(files)
        assert len(found) == FILES
        read(*found)
        at_once(blobs_of(blobs))
        assert max(peak(files), peak(blobs)) < GOAL_MB
        assert min(peak(files), peak(blobs)) > 10  # proves that the daemon was measured
