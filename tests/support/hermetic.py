"""A plugin of pytest that makes the suite independent of its parent and of other programs.

- Signals. `nohup` and background jobs ignore SIGINT, SIGHUP or SIGQUIT, and children inherit that.
  Here such a signal gets a handler that does nothing. The suite still ignores it, and the programs
  that tests start have the default action.
- Files. Each run has its own base directory, so a second run or another user cannot remove or close
  it. Mounts below it are detached at the end, and it is removed after a run without failures.
- Settings. The umask is 022, and variables that configure ocifs, registries' tools or colours are
  unset.

Rules that hold here:
- Nothing outside of the run's directory is changed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these, and `subprocess` resets them
SETTINGS = re.compile(
    r"(OCIFS|DOCKER|REGISTRY|BUILDAH|CONTAINERS|ORAS|HELM|NOTATION)_|(NO_|FORCE_|CLI)COLOR|LS_COLORS$|GREP_"
)
_base: list[Path] = []  # the base directory of this run


def isolate() -> None:
    """Reset signals, umask and variables. Called once, before test modules are imported."""
    for number in signal.valid_signals() - set(PYTHONS_OWN):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    for name in [name for name in os.environ if SETTINGS.match(name)]:
        del os.environ[name]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        # Not mkdtemp, whose names may have an underscore: podman makes a reference of the path.
        _base.append(Path(tempfile.gettempdir(), f"ocifs-tests-{secrets.token_hex(6)}"))
        _base[0].mkdir(mode=0o700)
        config.option.basetemp = str(_base[0] / "run")


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.pluginmanager.get_plugin("session")
    while _base:
        base = _base.pop()
        detach_mounts(base)
        if getattr(session, "exitstatus", None) == pytest.ExitCode.OK:
            shutil.rmtree(base, ignore_errors=True)


def detach_mounts(base: Path) -> None:
    """Detach the mounts that interrupted tests have left, the newest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in reversed([each for each in points if each.startswith(f"{base}/")]):
        command = (
            ["umount", "-l", point]
            if os.geteuid() == 0
            else ["fusermount3", "-u", "-z", "-q", point]
        )
        subprocess.run(command, check=False, capture_output=True)
