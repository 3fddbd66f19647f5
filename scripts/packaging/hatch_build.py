"""A build hook that adds manual pages, completions and the systemd unit to the packages.

pip, pipx, uv and scripts/package run it, in an environment with the libraries of `dependencies`.

Rules that hold here:
- A source distribution contains the files, so a wheel that is built from it has the same ones.
- An editable install has none: `scripts/man` writes the pages.
- An installation never fails because of these files. If they cannot be made, a warning is shown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any  # hatchling's arguments have no types

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MADE = "build/share"


class SharedFiles(BuildHookInterface[Any]):
    """Installs the files as `share` in a wheel, and adds them to a source distribution."""

    def dependencies(self) -> list[str]:
        """What the commands import. That is not pyfuse3, which would be compiled here."""
        if self._in_source_distribution():
            return []
        required: list[str] = self.metadata.core.dependencies
        return [each for each in required if not each.startswith("pyfuse3")]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        share = Path(self.root) / MADE
        if not self._in_source_distribution():
            self._temporary = tempfile.TemporaryDirectory()
            share = Path(self._temporary.name) / "share"
            if not self._generate(share):
                return
        if self.target_name == "wheel":
            build_data["shared_data"][str(share)] = "share"
        else:
            build_data["force_include"][str(share)] = MADE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_temporary"):
            self._temporary.cleanup()

    def _in_source_distribution(self) -> bool:
        return (Path(self.root) / "PKG-INFO").is_file()

    def _generate(self, share: Path) -> bool:
        command = [sys.executable, "-m", "scripts.make_share", str(share)]
        command += ["--version", self.metadata.version]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(
                f"the package has no manual pages and completions: {done.stderr[-2000:]}"
            )
        return done.returncode == 0
