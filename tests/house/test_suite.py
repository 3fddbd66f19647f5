"""The suite runs failures again, alone (scripts/suite.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.suite import MOST_AGAIN, Part, outcomes, report

UNSTEADY = """
from pathlib import Path

def test_passes():
    assert True

def test_passes_the_second_time():
    mark = Path(__file__).with_suffix(".mark")
    was_there = mark.exists()
    mark.touch()
    assert was_there
"""
ALWAYS = "def test_fails():\n    assert False\n"
ERROR = """
import pytest

@pytest.fixture
def broken():
    assert False

def test_it(broken):
    pass
"""
MANY = "\n".join(f"def test_{n}():\n    assert False\n" for n in range(MOST_AGAIN + 1))
COLLECTION = "import a_module_that_does_not_exist\n"


def run(tests: dict[str, str], where: Path) -> int:
    """Run each module as a part. The exit status of the suite."""
    where.mkdir()
    found = []
    for name, text in tests.items():
        path = where / f"test_{name}.py"
        path.write_text(text.replace(".mark", f".{name}"))
        found.append(Part(name, (str(path),)))
    return report(outcomes(found, where / "caches"))


def test_a_test_that_passes_alone_is_reported_and_does_not_fail_the_suite(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run({"unsteady": UNSTEADY}, tmp_path / "tests") == 0
    printed = capfd.readouterr().out
    assert "unsteady: 1 passed only when run again, in unsteady\n" in printed
    assert "::test_passes_the_second_time" in printed
    assert printed.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


@pytest.mark.parametrize("text", [ALWAYS, ERROR, COLLECTION])
def test_a_test_that_fails_twice_fails_the_suite(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    assert run({"unsteady": UNSTEADY, "red": text}, tmp_path / "tests") == 1
    printed = capfd.readouterr().out.splitlines()
    assert "failed: red" in printed
    assert printed[-1] == "2 passed, 1 failed, 0 skipped"


def test_many_failures_are_not_run_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run({"many": MANY}, tmp_path / "tests") == 1
    assert "again, alone" not in capfd.readouterr().out


def test_a_part_that_dies_fails_the_suite(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dies = "import os\n\ndef test_dies():\n    os._exit(1)\n"
    assert run({"dies": dies}, tmp_path / "tests") == 1
    assert "failed: dies" in capfd.readouterr().out.splitlines()
