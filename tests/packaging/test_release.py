"""scripts/release checks a small repository before it builds anything.

The script itself and the other tests try the built files.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.test_version import git
from tests.support.installed import ROOT

CHANGES = (
    "# Changes\n\n## 0.2.0 (unreleased)\n\n- Something new.\n\n"
    "## 0.1.0 (2026-01-01)\n\n- The first.\n"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit. Its scripts/check fails, which ends the script there."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/release", tmp_path / "scripts")
    (tmp_path / "scripts/check").write_text("#!/bin/sh\necho checking\nexit 7\n")
    (tmp_path / "scripts/check").chmod(0o755)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def commit(place: Path) -> None:
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "one")


def release(place: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [place / "scripts/release", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stderr + done.stdout


def test_a_dry_run_continues_to_the_checks_and_lists_what_is_to_do(repository: Path) -> None:
    status, said = release(repository, "0.2.0")
    assert status == 7 and said.endswith("checking\n")
    assert 'to do: replace "unreleased" by a date' in said


@pytest.mark.parametrize("words", [(), ("v0.2.0",), ("0.2",), ("0.2.0", "--upload")])
def test_invalid_versions_and_options_are_rejected(
    repository: Path, words: tuple[str, ...]
) -> None:
    assert release(repository, *words)[0] == 2


def test_a_release_for_real_has_a_date(repository: Path) -> None:
    status, said = release(repository, "0.2.0", "--for-real")
    assert status == 1 and 'has "unreleased" in place of the date' in said
    assert (
        subprocess.run(["git", "-C", repository, "tag"], capture_output=True, check=True).stdout
        == b""
    )


@pytest.mark.parametrize(
    ("version", "complaint"),
    [("0.3.0", "has no heading for 0.3.0"), ("0.1.0", "0.1.0 is not the first version")],
)
def test_the_changelog_begins_with_the_version(
    repository: Path, version: str, complaint: str
) -> None:
    status, said = release(repository, version)
    assert status == 1 and complaint in said


def test_the_changelog_has_changes(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text(CHANGES.replace("- Something new.\n", ""))
    commit(repository)
    status, said = release(repository, "0.2.0")
    assert status == 1 and "has no changes for 0.2.0" in said


def test_a_tag_is_set_once(repository: Path) -> None:
    git(repository, "tag", "v0.2.0")
    status, said = release(repository, "0.2.0")
    assert status == 1 and "the tag v0.2.0 exists" in said


def test_all_is_committed(repository: Path) -> None:
    (repository / "new").write_text("")
    status, said = release(repository, "0.2.0")
    assert status == 1 and "uncommitted changes" in said
