"""Runs the fuzz targets: some inputs each in the suite, minutes in `scripts/soak --fuzz`."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.bounds import bounded
from tests.fuzz.targets import TARGETS

ROUND = 500  # inputs between two checks of the time


@dataclass
class Fuzzed:
    """The number of inputs of each kind, and the violations of laws."""

    seconds: float
    inputs: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def line(self) -> str:
        facts = {"seconds": self.seconds, "inputs": dict(self.inputs), "all": self.inputs.total()}
        return json.dumps({**facts, "failures": self.failures})


def tried(name: str, many: int, chance: int | None = None) -> int:
    """Try many inputs of a target, and return their number.

    Raises the error of a violated law or bound, with the smallest input that causes it.
    """
    target, count = TARGETS[name], 0

    def law(value: Any) -> None:
        nonlocal count
        count += 1
        with bounded():
            target.law(value)

    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    chosen = settings(
        max_examples=many,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    run = chosen(given(target.inputs)(law))
    if chance is not None:
        run = seed(chance)(run)
    run()
    return count


def fuzz(seconds: float, first: int) -> Fuzzed:
    """Run all targets repeatedly until the time is over. Each round has a different seed."""
    logging.disable()  # every input would log lines
    found, end, number = Fuzzed(seconds), time.monotonic() + seconds, first
    while time.monotonic() < end and len(found.failures) < 20:
        for name in TARGETS:
            try:
                found.inputs[name] += tried(name, ROUND, number)
            except Exception:
                found.failures.append(f"{name}, seed {number}: {traceback.format_exc()}")
        number += 1
    return found
