"""How verbs report progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""Called in the event loop with the amount that is done and the total; it must not block."""


def ignore_progress(done: int, total: int) -> None:
    """The progress callback of a caller that needs none."""
