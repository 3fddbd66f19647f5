"""A secret in any log or output fails the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAYS = {
    "log": "logging.getLogger('ocifs.registry').debug('asked with %s', SECRET)",
    "log, in a URL": "logging.getLogger('ocifs').warning('GET /?password=s3cr3t%2Fof+this+test')",
    "log, as Basic": "logging.getLogger('ocifs').info(base64.b64encode(SECRET.encode()).decode())",
    "print": "print(SECRET)",
    "another process": "note('ocifs ls', SECRET.encode())",
    "a server's log": "(tmp_path / 'access.log').write_text(f'GET /{SECRET}')",
    "nowhere": "assert SECRET",
}
TEST = """import base64, logging
from tests.support.leaks import note
from tests.support.secrets import keep_secret
SECRET = keep_secret("s3cr3t/of this test")
def test_it(tmp_path):
    {way}
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_that_is_shown_fails_the_run(tmp_path: Path, way: str) -> None:
    (tmp_path / "test_it.py").write_text(TEST.format(way=WAYS[way]))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.support.leaks",
        "-p",
        "no:cacheprovider",
    ]
    asked = [f"--basetemp={tmp_path / 'base'}", "-c", str(tmp_path / "pytest.ini"), str(tmp_path)]
    done = subprocess.run([*command, *asked], cwd=ROOT, capture_output=True, check=False)
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == (0 if way == "nowhere" else 1), said
    assert ("SECRETS WERE SHOWN" in said) == (way != "nowhere")
    assert "1 passed" in said
