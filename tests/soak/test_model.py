"""A short run of the model; `scripts/soak --model` runs for minutes."""

from __future__ import annotations

import pytest

from tests.soak.machine import Machine, drive

pytestmark = [pytest.mark.mount, pytest.mark.servers, pytest.mark.timeout(900)]


def test_every_answer_is_one_that_the_model_allows() -> None:
    drive(1, examples=4, steps=50, shrink=False)
    print(dict(Machine.done))
    assert Machine.done["bytes compared"] > 0
