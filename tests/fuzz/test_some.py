"""Some inputs of each kind from outside in every run of the suite; `scripts/soak --fuzz` goes on for minutes."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz import tried
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_of_a_kind_is_in_order_or_an_error_of_ours(name: str) -> None:
    assert tried(name, 60) >= 1
