"""The publishers' tools, as built by scripts/setup --dev or on the PATH.

Rules that hold here:
- A test with a missing tool is skipped by name, and fails in CI.
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
    built = [
        str(path) for path in sorted(_KEPT.glob(f"{name}-v*/{name}")) if os.access(path, os.X_OK)
    ]
    path = built[-1] if built else shutil.which(name)
    if path is None:
        assert optional or not os.environ.get("CI"), (
            f"{name} must be there in CI: see scripts/setup"
        )
        pytest.skip(f"{name} is not installed")
    home.mkdir(exist_ok=True)
    return Tool(path, home)
