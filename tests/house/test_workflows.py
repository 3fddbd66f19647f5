"""Workflows of GitHub Actions call existing scripts, on every supported version of Python."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_script_that_a_workflow_runs_exists(path: Path) -> None:
    scripts = re.findall(r"scripts/[a-z_/]+", path.read_text())
    assert scripts
    assert [name for name in scripts if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_few_permissions_and_no_interpolation_in_commands(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    commands = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    assert any(commands)
    assert [command for command in commands if "${{" in command] == []


def test_the_tests_run_on_every_version_that_the_project_declares() -> None:
    prefix = "Programming Language :: Python :: 3."
    classifiers = [line for line in PROJECT["classifiers"] if line.startswith(prefix)]
    declared = [line.rpartition(" ")[2] for line in classifiers]
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
