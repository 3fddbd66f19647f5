"""Some untrusted inputs of each kind. `scripts/soak --fuzz` tries them for minutes."""

from __future__ import annotations

import pytest

from tests.fuzz.bounds import OutOfBounds, bounded
from tests.fuzz.fuzz import tried
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_of_a_kind_is_in_order_or_an_error_of_ours(name: str) -> None:
    assert tried(name, 60) >= 1


def test_an_input_that_does_not_end_is_a_finding() -> None:
    with pytest.raises(OutOfBounds, match="CPU"), bounded(seconds=0.2):
        while True:
            pass


def test_an_input_that_takes_memory_of_the_process_is_a_finding() -> None:
    with pytest.raises(OutOfBounds, match="memory"), bounded(mebibytes=64):
        held = bytearray(128 << 20)
        held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])  # write to each page
        del held
