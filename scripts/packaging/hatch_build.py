"""A build hook that adds manual pages, completions and the systemd unit to the packages.

scripts/package generates them before the build.

Rules that hold here:
- Nothing is generated here, because an isolated build does not have the libraries that ocifs needs
  to list its options.
- If nothing was generated (`pip install .`, an editable install), nothing is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any  # hatchling's arguments have no types

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MADE = "build/share"


class SharedFiles(BuildHookInterface[Any]):
    """Installs `build/share` as `share`.

    A source distribution contains it for the wheels that are built from it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not (Path(self.root) / MADE).is_dir():
            return
        if self.target_name == "wheel":
            build_data["shared_data"][MADE] = "share"
        else:
            build_data["force_include"][MADE] = MADE
