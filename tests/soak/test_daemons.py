"""A leak of descriptors is noticed by the file that is open too often."""

from __future__ import annotations

import os
from pathlib import Path

from tests.soak.daemons import SAME, targets


def test_descriptors_are_counted_by_their_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    descriptors = [os.open(path, os.O_RDONLY) for _ in range(SAME + 1)]
    try:
        assert targets(Path("/proc/self/fd"))[str(path)] == SAME + 1
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert targets(Path("/proc/self/fd"))[str(path)] == 0
