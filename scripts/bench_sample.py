"""The type of the measurements of scripts/bench."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """A measurement of ocifs, a peer's if there is one, and the targets for it or for the ratio."""

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    most: float | None = None
    most_ratio: float | None = None
