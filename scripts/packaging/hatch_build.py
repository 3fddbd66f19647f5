"""What the build of a wheel or a source distribution adds: manual pages, completions and the unit,
made before by scripts/package.

Rules that hold here: nothing is made here, since a build sees none of the libraries that ocifs
needs to say what its options are; where nothing was made (`pip install .`, an editable install)
nothing is added, and that is no error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any  # what hatchling hands over has no types

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MADE = "build/share"


class SharedFiles(BuildHookInterface[Any]):
    """`build/share` is `share` of the place where a wheel is installed, and is kept in a source
    distribution for wheels made of it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not (Path(self.root) / MADE).is_dir():
            return
        if self.target_name == "wheel":
            build_data["shared_data"][MADE] = "share"
        else:
            build_data["force_include"][MADE] = MADE
