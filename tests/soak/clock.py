"""The clock of a daemon that somebody moves: libfaketime shifts what it reads, as a computer's
clock does that was asleep.

Rules that hold here: time only goes on, by itself and in jumps; the kernel's own clock, and so its
memory of names, is not moved.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PLACES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@dataclass
class Clock:
    """How far the daemons' clock is ahead, in a file that they read."""

    file: Path
    ahead: float = 0.0
    _jumps: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jump(0)

    def now(self) -> float:
        """What the daemons take for the time since some moment, in seconds."""
        return time.monotonic() + self.ahead

    def jump(self, seconds: float) -> None:
        """Let so much time pass for the daemons at once."""
        self.ahead += seconds
        self._jumps.append((time.monotonic(), seconds))
        new = self.file.with_suffix(".new")
        new.write_text(f"+{self.ahead:.3f}\n")
        new.rename(self.file)

    def passed(self, real: float) -> float:
        """How many of the daemons' seconds the last so many real ones were."""
        begin = time.monotonic() - real
        return real + sum(seconds for when, seconds in self._jumps if when >= begin)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process follow this clock."""
        library = next(iter(sorted(Path("/").glob(PLACES[1:]))), None)
        if library is None:
            assert not os.environ.get("CI"), "libfaketime must be there in CI: see scripts/setup"
            pytest.skip("libfaketime is not installed")
        return {
            **{"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self.file)},
            "FAKETIME_NO_CACHE": "1",
        }
