"""Warns about credential files that other users can change.

Such a user decides which credential is sent, and which helper program runs. Called from worker
threads. State: the files with a warning, so that each is warned about once.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ocifs.userfiles import unsafe_permissions

log = logging.getLogger("ocifs.registry")


class SafetyCheck:
    """Checks the permissions of credential files."""

    def __init__(self) -> None:
        self._warned: set[Path] = set()

    def check(self, path: Path) -> None:
        """Log a warning if other users can change the file. Blocks on disk."""
        problem = unsafe_permissions(path) if path not in self._warned else ""
        if problem:
            self._warned.add(path)
            log.warning("unsafe permissions of a credentials file: %s", problem)
