"""One figure that scripts/bench shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One figure of ours, a peer's where there is one, and what the figure or the ratio may be at
    most.
    """

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    most: float | None = None
    most_ratio: float | None = None
