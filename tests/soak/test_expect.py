"""The table by which the soak judges errors: when a fault explains one, and which."""

from __future__ import annotations

import errno
import random

import pytest

from tests.soak.driver import deck
from tests.soak.expect import ALLOWED, ASKED_PAUSE, FAULTS, LONGEST_PAUSE, STEPS, TIMEOUT, Faults


def test_no_fault_explains_absence() -> None:
    assert not [
        kind for kind, row in ALLOWED.items() for numbers in row.values() if errno.ENOENT in numbers
    ]
    assert all(set(row) == set(STEPS) for row in ALLOWED.values())


@pytest.mark.parametrize(
    ("began", "ended", "explained"),
    [
        (0, 9, False),
        (9, 10.5, True),
        (11, 12, True),
        (11, 99, True),
        (12 + TIMEOUT, 99, True),
        (40, 41, False),
    ],
)
def test_a_fault_explains_what_overlaps_it_or_follows_it_closely(
    began: float, ended: float, explained: bool
) -> None:
    faults = Faults()
    faults.begin("silent", 10)
    faults.end(12)
    assert faults.errnos(["name"], began, ended) == (
        set(ALLOWED["silent"]["name"]) if explained else set()
    )


def test_a_fault_that_lasts_explains_until_it_ends() -> None:
    faults = Faults()
    faults.begin("401", 10)
    assert faults.errnos(STEPS, 1000, 1001) == {errno.EACCES}
    faults.end(1002)
    assert not faults.errnos(STEPS, 1002 + TIMEOUT + ASKED_PAUSE + LONGEST_PAUSE + 1, 2000)


def test_a_fault_of_content_explains_nothing_of_names() -> None:
    faults = Faults()
    faults.begin("corrupt", 10)
    assert faults.errnos(["name"], 10, 11) == set()
    assert faults.errnos(["content"], 10, 11) == {errno.EIO}


def test_every_kind_has_its_turn() -> None:
    drawn = deck(random.Random(1), FAULTS)
    assert {next(drawn) for _ in FAULTS} == set(FAULTS)
