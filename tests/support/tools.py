"""The publishers' tools, as built by scripts/tools or on the PATH.

Rules that hold here:
- A tool that is missing is built for the first test that needs it, if Go is installed.
- A test with a tool that cannot be built is skipped by name, and fails in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Evaluated at import, because many tests change HOME.
_KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocifs-dev"


# The environment of pytest: tests change HOME, where Go caches what it has compiled.
_STARTED_WITH = dict(os.environ)
TOOLS = Path(__file__).parents[2] / "scripts/tools"


@dataclass(frozen=True)
class Tool:
    """A program that runs in its own directory, which is also its home directory."""

    path: str
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path, check: bool = True) -> bytes:
        """Run the program, and return its standard output."""
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home),
            **self.environment,
        }
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            environment.pop(name, None)
        command = [self.path, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.home, env=environment, capture_output=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout


def tool(name: str, home: Path, *, optional: bool = False) -> Tool:
    """A tool by its name. If it is missing, skips the test; in CI only if it is `optional`."""
    path = _built(name) or shutil.which(name)
    if (
        path is None
        and subprocess.run([TOOLS, name], env=_STARTED_WITH, check=False).returncode == 0
    ):
        path = _built(name)
    if path is None:
        assert optional or not os.environ.get("CI"), (
            f"{name} must be there in CI: see scripts/tools"
        )
        pytest.skip(f"{name} is not installed")
    home.mkdir(exist_ok=True)
    return Tool(path, home)


def _built(name: str) -> str | None:
    """The newest version of a tool that scripts/tools has built."""
    paths = sorted(_KEPT.glob(f"{name}-v*/{name}"))
    return next((str(path) for path in reversed(paths) if os.access(path, os.X_OK)), None)
