"""scripts/setup waits for another apt, with an apt-get that records its arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"

# The update fails while `locks` has lines. The installation fails, which ends the script.
APT = """#!/bin/sh
echo "$*" >> "$RECORDS/apt-get"
case $1 in
  update)
    [ -s "$RECORDS/locks" ] || exit 0
    sed -i 1d "$RECORDS/locks"
    cat "$RECORDS/message" >&2
    exit 100
    ;;
  install) exit 7 ;;
esac
"""
PROGRAMS = {
    "apt-get": APT,
    "dpkg-query": "#!/bin/sh\nexit 1\n",
    "sleep": '#!/bin/sh\necho "$*" >> "$RECORDS/sleep"\n',
    "sudo": '#!/bin/sh\nexec "$@"\n',
}


def run_setup(place: Path, locks: int, message: str = LOCKED) -> subprocess.CompletedProcess[str]:
    """Run a copy of scripts/setup, so that it cannot change this clone."""
    for name in ("bin", "scripts"):
        (place / name).mkdir()
    shutil.copy(ROOT / "scripts/setup", place / "scripts/setup")
    for name, text in PROGRAMS.items():
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    (place / "locks").write_text("locked\n" * locks)
    (place / "message").write_text(f"{message}\n")
    return subprocess.run(
        [place / "scripts/setup"],
        env={**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "RECORDS": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("locks", [0, 1, 3])
def test_a_lock_of_apt_is_waited_for(tmp_path: Path, locks: int) -> None:
    done = run_setup(tmp_path, locks)
    assert done.returncode == 7, done.stderr
    *updates, install = lines(tmp_path / "apt-get")
    assert updates == ["update -qq"] * (locks + 1)
    assert len(lines(tmp_path / "sleep")) == locks
    assert done.stderr.count("waiting for another apt") == locks
    words = install.split()
    assert words[:2] == ["install", "-y"] and "fuse3" in words
    # The lock of an installation is apt's own to wait for.
    assert words[words.index("-o") + 1] == "DPkg::Lock::Timeout=300"


def test_another_error_of_apt_is_not_waited_for(tmp_path: Path) -> None:
    done = run_setup(tmp_path, 1, "E: The repository has no Release file")
    assert done.returncode == 1
    assert "setup: cannot update the lists of packages: E: The repository has" in done.stderr
    assert lines(tmp_path / "apt-get") == ["update -qq"] and not lines(tmp_path / "sleep")
