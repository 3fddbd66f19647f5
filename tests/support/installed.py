"""What the tests of packages share: a person who knows nothing of this clone, and the demo in a
directory of its own.
"""

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
    """What a command prints; what it complained of, if it failed."""
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def elsewhere(home: Path, *programs: Path) -> dict[str, str]:
    """The environment of a person who has `programs` on the PATH, and an empty home."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match("XDG_|OCIFS_|PYTHON|VIRTUAL", name)
    }
    path = ":".join([*map(str, programs), "/usr/sbin:/usr/bin:/sbin:/bin"])
    return {**kept, "HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8"}


def copy_demo(place: Path) -> Path:
    """scripts/demo in a directory where nothing but it and the example is."""
    (place / "scripts").mkdir(parents=True)
    for name in ("demo", "example.py"):
        shutil.copy(ROOT / "scripts" / name, place / "scripts")
    return place / "scripts/demo"


def demo(place: Path, environment: Mapping[str, str]) -> str:
    """What the demo prints of the ocifs that is on the PATH."""
    return run(copy_demo(place), "--installed", env=environment, cwd=place, seconds=60)
