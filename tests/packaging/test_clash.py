"""Another distribution with the import package `ocifs` is detected, but not when commands start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MESSAGE = "ocifs and ocifs-mount overwrite each other's files of the package ocifs"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the metadata of a distribution like Oracle's."""
    info = tmp_path / "site" / "OCIFS-1.3.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: OCIFS\nVersion: 1.3.1\n")
    (info / "RECORD").write_text("ocifs/__init__.py,,\nocifs/core.py,,\n")
    return tmp_path / "site"


def python(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{place}:{ROOT}", "HOME": str(place)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def test_the_api_warns(place: Path) -> None:
    done = python(place, "-c", "import ocifs; ocifs.open")
    assert done.returncode == 0
    assert f"UserWarning: {MESSAGE}; use separate environments" in done.stderr
    shutil.rmtree(place / "OCIFS-1.3.1.dist-info")
    assert MESSAGE not in python(place, "-c", "import ocifs; ocifs.open").stderr


@pytest.mark.parametrize(
    ("record", "found"),
    [("ocifs/x.py,,\n", True), ("other/x.py,,\n", False), ("", False), ('\0,"', False)],
)
def test_doctor_warns(place: Path, record: str, found: bool) -> None:
    (place / "OCIFS-1.3.1.dist-info" / "RECORD").write_text(record)
    done = python(place, "-m", "ocifs", "doctor")
    assert (MESSAGE in done.stdout) == found, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_does_not_read_the_metadata_of_distributions(place: Path) -> None:
    code = "import sys, ocifs.cli.main, ocifs.cli.ls; print('importlib.metadata' in sys.modules)"
    done = python(place, "-c", code)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("name", ["main", "mount_helper"])
def test_replaced_files_are_an_error(place: Path, name: str) -> None:
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ocifs", place / "ocifs", ignore=skipped)
    (place / "ocifs/__init__.py").write_text("__version__ = '1.3.1'\n")
    done = python(place, "-c", f"from ocifs.__main__ import {name}; {name}()")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ocifs: another distribution has replaced files of ocifs-mount; ")
    assert done.stderr.count("\n") == 1
