"""The soak notices faulty variants of ocifs: a few of them here, all of them in `scripts/soak
--mutants`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.mutants import MUTANTS, Mutant, copy_with, try_mutant, why_not_applicable

pytestmark = pytest.mark.timeout(900)

QUICK = ("fail a fifth of the reads", "read from one byte later")
SECONDS = 60  # most are killed within ten


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_a_mutant_still_applies(mutant: Mutant, tmp_path: Path) -> None:
    copy_with(mutant, tmp_path)
    assert why_not_applicable(mutant, tmp_path) == ""


def test_a_mutant_of_something_that_is_gone_is_reported(tmp_path: Path) -> None:
    gone = Mutant("gone", "ocifs.oci.distribution.retry", "no_such_function\n")
    assert try_mutant(gone, 1, 1, tmp_path).word == "no longer applies"


@pytest.mark.mount
@pytest.mark.servers
@pytest.mark.parametrize("name", QUICK)
def test_the_soak_kills_a_mutant(name: str, tmp_path: Path) -> None:
    (mutant,) = [each for each in MUTANTS if each.name.startswith(name)]
    verdict = try_mutant(mutant, SECONDS, 1, tmp_path)
    assert verdict.word == "killed", verdict
