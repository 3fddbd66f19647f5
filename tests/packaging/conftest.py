"""Fixtures for the packages, which are built once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.installed import ROOT, run


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source distribution of this clone."""
    directory = tmp_path_factory.mktemp("dist")
    said = run(ROOT / "scripts/package", directory)
    assert sorted(said.splitlines()[-2:]) == sorted(str(each) for each in directory.iterdir())
    return directory


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this clone."""
    said = run(ROOT / "scripts/packaging/deb", tmp_path_factory.mktemp("deb"), seconds=300)
    return Path(said.splitlines()[-1])
