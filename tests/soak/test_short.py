"""A short soak in every run of the suite; `scripts/soak` goes on for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.driver import soak

pytestmark = [pytest.mark.mount, pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("seed", "full"), [(1, False), (2, True)])
def test_nothing_is_wrong_lost_or_stuck(tmp_path: Path, seed: int, full: bool) -> None:
    report, line = soak(seed, 12.0, tmp_path, full=full)
    print(line)
    assert report.failures == []
    assert report.compared > 0
