"""The suite does not depend on its parent (tests/support/hermetic.py).

scripts/hostile runs the whole suite with such a parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
CHILD = (
    "import os, signal, sys\n"
    f"for number in {[int(each) for each in IGNORED]}:\n"
    "    assert signal.getsignal(number) is not signal.SIG_IGN, number\n"
    "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
    "assert os.umask(0o022) == 0o022\n"
    "assert not [name for name in os.environ if name.startswith(('OCIFS_', 'DOCKER_'))]\n"
)


def test_programs_that_tests_start_have_default_signals_mask_and_settings() -> None:
    subprocess.run([sys.executable, "-c", CHILD], check=True, timeout=60)


def test_a_run_has_a_base_directory_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert tmp_path_factory.getbasetemp().parent.name.startswith(
        ("ocifs-tests-", "popen-gw")
    ) or "--basetemp" in str(sys.argv)


def test_the_suite_passes_when_its_parent_ignores_signals_and_has_settings_of_its_own() -> None:
    tests = f"{__file__}::test_programs_that_tests_start_have_default_signals_mask_and_settings"

    def hostile() -> None:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        os.umask(0o077)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env={**os.environ, "OCIFS_CONFIG": "/nowhere", "DOCKER_CONFIG": "/nowhere"},
        preexec_fn=hostile,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
