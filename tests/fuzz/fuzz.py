"""Runs the targets: some inputs for each in the suite, as many as there is time for in
`scripts/soak --fuzz`; and counts them.
"""

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

ROUND = 500  # inputs between two looks at the clock


@dataclass
class Fuzzed:
    """How many inputs of each kind were tried, and what broke a law."""

    seconds: float
    inputs: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def line(self) -> str:
        facts = {"seconds": self.seconds, "inputs": dict(self.inputs), "all": self.inputs.total()}
        return json.dumps({**facts, "failures": self.failures})


def tried(name: str, many: int, chance: int | None = None) -> int:
    """Try many inputs of a target; how many it were.

    Raises what broke the law or took too much, with the smallest such input.
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
    """Every target in turn, again and again, until the time is over; each round has a seed of its
    own.
    """
    logging.disable()  # a line for each input
    found, end, number = Fuzzed(seconds), time.monotonic() + seconds, first
    while time.monotonic() < end and len(found.failures) < 20:
        for name in TARGETS:
            try:
                found.inputs[name] += tried(name, ROUND, number)
            except Exception:
                found.failures.append(f"{name}, seed {number}: {traceback.format_exc()}")
        number += 1
    return found
