"""The steps of "Add a kind of artifact" in docs/how-to/extend.md, in a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("ocifs/**/*.py", "scripts/generate_kinds.py", "tests/oci/*.py", "tests/__init__.py")


def blocks(heading: str) -> list[tuple[str, str]]:
    """The fenced blocks of a section of the page: the language, and the text."""
    page = (ROOT / "docs/how-to/extend.md").read_text()
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def insert(file: Path, beginning: str, row: str) -> None:
    """Insert a row at the beginning of a table."""
    before, found, after = file.read_text().partition(f"\n{beginning}\n")
    assert found
    file.write_text(f"{before}{found}{textwrap.indent(row.rstrip(), '    ')},\n{after}")


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def run_tests(copy: Path) -> subprocess.CompletedProcess[str]:
    files = ("tests/oci/test_artifact.py", "tests/oci/test_artifact_page.py")
    options = (
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        f"--rootdir={copy}",
    )
    return run(copy, "-m", "pytest", *options, *files)


def test_a_kind_is_a_row_of_the_table_and_a_row_of_its_test(tmp_path: Path) -> None:
    for path in (path for pattern in COPIED for path in ROOT.glob(pattern)):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (python, row), (other, test_row), (shell, commands) = blocks("Add a kind of artifact")
    assert (python, other, shell) == ("python", "python", "sh")

    insert(tmp_path / "ocifs/oci/kinds/packages.py", "PACKAGES = (", row)
    without = run_tests(tmp_path)
    assert without.returncode == 1
    assert "test_every_kind_of_the_table_has_a_row" in without.stdout
    assert "test_the_page_of_kinds_is_up_to_date" in without.stdout

    insert(tmp_path / "tests/oci/test_artifact.py", "ROWS = [", test_row)
    generate, tests = commands.splitlines()
    assert tests == "pytest tests/oci"
    generated = run(tmp_path, *generate.split()[1:])
    assert generated.returncode == 0, generated.stdout
    assert (
        "| `acme-dashboard` | Acme dashboard |"
        in (tmp_path / "docs/reference/artifact-kinds.md").read_text()
    )
    done = run_tests(tmp_path)
    assert done.returncode == 0, done.stdout
