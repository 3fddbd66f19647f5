"""Tars are read in the same way on every Python, independent of its standard library."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ocifs
from tests.layers.corners import CORNERS

HERE = Path(ocifs.__file__).parent.parent
# Reads tars whose names it gets on standard input, with the standard library and the code under
# test alone.
READER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ocifs.errors import OcifsError
from ocifs.layers.tar.reader import read_tar
from ocifs.settings import Limits
for name in sys.stdin.read().split():
    found = []
    with open(name, "rb") as file:
        data = file.read()
    try:
        pieces = iter([data[:700], data[700:]])
        found.append(read_tar(pieces, Limits(), lambda entry: found.append(repr(tuple(entry)))))
    except OcifsError as error:
        found.append(f"{type(error).__name__}: {error}")
    print(json.dumps(found))
"""


def pythons() -> dict[str, str]:
    """The supported interpreters on this machine, by version."""
    names = [f"python3.{minor}" for minor in range(11, 20)]
    found = [path for name in names if (path := shutil.which(name))]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found += [str(path) for path in pyenv.glob("versions/*/bin/python3")]
    versions: dict[str, str] = {}
    for path in found:
        asked = subprocess.run(
            [path, "-c", "import sys; print(sys.version)"],
            capture_output=True,
            text=True,
            check=False,
        )
        match = re.match(r"3\.(\d+)\.\d+\S*", asked.stdout)
        if asked.returncode == 0 and match is not None and int(match[1]) >= 11:
            versions.setdefault(match[0], path)
    return versions


def read_by(python: str, files: list[Path]) -> list[object]:
    command = [python, "-I", "-c", READER, str(HERE)]
    done = subprocess.run(
        command, input="\n".join(map(str, files)), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("corners")
    made = []
    for number, data in enumerate(itertools.chain.from_iterable(CORNERS.values())):
        made.append(place / str(number))
        made[-1].write_bytes(data)
    return made


@pytest.mark.parametrize("version", pythons())
def test_every_corner_reads_the_same_on_every_python(version: str, files: list[Path]) -> None:
    assert read_by(pythons()[version], files) == read_by(sys.executable, files)


def test_tars_are_not_read_by_the_standard_library() -> None:
    """The results of tarfile for unusual headers changed in patch releases (python/cpython#141707,
    #104201, CVE-2025-8194).
    """
    for module in (HERE / "ocifs" / "layers").glob("*.py"):
        assert "import tarfile" not in module.read_text(), module
