"""A short soak in every run of the suite; `scripts/soak` goes on for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.crowd import crowd
from tests.soak.driver import Plan, soak

pytestmark = [pytest.mark.mount, pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("seed", "full"), [(1, False), (2, True)])
def test_nothing_is_wrong_lost_or_stuck(tmp_path: Path, seed: int, full: bool) -> None:
    report, line = soak(seed, 12.0, tmp_path, Plan(full))
    print(line)
    assert report.failures == []
    assert report.compared > 0


def test_many_mounts_and_readers_on_a_cache_that_is_too_small(tmp_path: Path) -> None:
    found = crowd(6, tmp_path, processes=4)
    print(found.line())
    assert found.failures == []
    assert found.compared > 0
