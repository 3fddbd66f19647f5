"""Helpers for tests of installed packages: an environment without this clone, and the demo."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: int = 110,
) -> str:
    """Run a command, and return its output. A failure shows its standard error."""
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def elsewhere(home: Path, *programs: Path) -> dict[str, str]:
    """The environment of a user with `programs` on the PATH and an empty home directory."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match("XDG_|OCIFS_|PYTHON|VIRTUAL", name)
    }
    path = ":".join([*map(str, programs), "/usr/sbin:/usr/bin:/sbin:/bin"])
    return {**kept, "HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8"}


def copy_demo(place: Path) -> Path:
    """Copy scripts/demo and scripts/example.py alone into a directory."""
    (place / "scripts").mkdir(parents=True)
    for name in ("demo", "example.py"):
        shutil.copy(ROOT / "scripts" / name, place / "scripts")
    return place / "scripts/demo"


def demo(place: Path, environment: Mapping[str, str]) -> str:
    """The output of the demo, with the ocifs on the PATH."""
    return run(copy_demo(place), "--installed", env=environment, cwd=place, seconds=60)
