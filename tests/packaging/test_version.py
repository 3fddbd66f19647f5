"""Versions come from git's tags, with a sensible fallback without tags."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import ocifs
from ocifs.cli.main import group

ROOT = Path(__file__).parents[2]


def git(place: Path, *words: str) -> None:
    who = (
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    )
    subprocess.run(["git", "-C", place, *who, *words], check=True, capture_output=True, timeout=120)


def version(place: Path) -> str:
    """The version that the build finds for a source tree."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "SETUPTOOLS_SCM"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "version"],
        cwd=place,
        env=kept,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with the files that a build needs, outside of git."""
    place = tmp_path / "tree"
    shutil.copytree(ROOT / "ocifs", place / "ocifs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "scripts/packaging", place / "scripts/packaging")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, place)
    return place


@pytest.fixture
def clone(tree: Path) -> Path:
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    return tree


def test_a_tag_is_the_version(clone: Path) -> None:
    git(clone, "tag", "v1.2.3")
    git(clone, "tag", "nightly-9")
    assert version(clone) == "1.2.3"
    git(clone, "commit", "-q", "--allow-empty", "-m", "two")
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]+", version(clone))


def test_a_clone_without_tags_has_a_version_below_every_release(
    clone: Path, tmp_path: Path
) -> None:
    assert re.fullmatch(r"0\.0\.1\.dev1\+g[0-9a-f]+", version(clone))
    git(clone, "commit", "-q", "--allow-empty", "-m", "two")
    git(clone, "tag", "-a", "v1.2.3", "-m", "x")
    git(clone, "commit", "-q", "--allow-empty", "-m", "three")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{clone}", "shallow")
    assert re.fullmatch(r"0\.0\.1\.dev\d\+g[0-9a-f]+", version(tmp_path / "shallow"))


def test_files_without_git_have_a_version(tree: Path) -> None:
    assert version(tree) == "0.0.0"


def test_a_source_distribution_keeps_its_version_without_git(clone: Path, tmp_path: Path) -> None:
    git(clone, "tag", "v1.2.3")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path / "dist"]
    subprocess.run(build, cwd=clone, check=True, capture_output=True, timeout=120)
    shutil.unpack_archive(tmp_path / "dist/ocifs_mount-1.2.3.tar.gz", tmp_path)
    assert version(tmp_path / "ocifs_mount-1.2.3") == "1.2.3"


def test_the_command_prints_the_installed_version() -> None:
    from importlib.metadata import version as installed

    assert ocifs.__version__ == installed("ocifs-mount")
    assert (
        CliRunner().invoke(group, ["--version"]).output == f"ocifs, version {ocifs.__version__}\n"
    )


def test_files_that_are_not_installed_have_version_zero() -> None:
    bare = "sys.path = [sys.argv[1], *(each for each in sys.path if 'site-packages' not in each)]"
    look = f"import sys; {bare}; import ocifs; print(ocifs.__version__)"
    command = [sys.executable, "-S", "-c", look, ROOT]
    assert (
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
        == "0.0.0\n"
    )


def test_help_looks_up_no_version() -> None:
    look = (
        "import sys, ocifs.cli.main as m; m.group(['--help'], standalone_mode=False)"
        "; print('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.endswith("False\n")
