"""Drive a mount of a real registry through faults, kills, evictions and changes, and compare every byte that is read.

    scripts/soak [--minutes M] [--seed N] [--runs R] [--crowd | --fuzz | --model]

Prints a line of JSON a run; exits with 1 when anything was wrong. Every other run verifies in full and lies on the wire, too. With --crowd
there are no faults, but four mounts on one cache that is too small, and eight processes of sixteen readers each. With --fuzz nothing is
mounted: inputs of every kind that comes from outside are made by chance and tried, and counted. With --model Hypothesis
chooses what is done, the daemons' clock is moved, and a model says of every answer whether it may be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.fuzz import fuzz
from tests.soak.crowd import crowd
from tests.soak.driver import soak
from tests.soak.machine import drive_for


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="in all")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next ones have the next numbers")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--crowd", action="store_true", help="many readers and mounts on one cache, without faults")
    parser.add_argument(
        "--fuzz", action="store_true", help="inputs from strangers and from damaged disks, without a mount"
    )
    parser.add_argument("--model", action="store_true", help="Hypothesis and a model, under a clock that jumps")
    options = parser.parse_args()
    if options.model:
        modelled = drive_for(options.minutes * 60, options.seed)
        print(modelled.line())
        return 1 if modelled.failures else 0
    if options.fuzz:
        tried = fuzz(options.minutes * 60, options.seed)
        print(tried.line())
        return 1 if tried.failures else 0
    if options.crowd:
        with tempfile.TemporaryDirectory(prefix="ocifs-soak-") as place:
            found = crowd(int(options.minutes * 60), Path(place))
        print(found.line())
        return 1 if found.failures else 0
    wrong = 0
    for number in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="ocifs-soak-") as place:
            seconds = options.minutes * 60 / options.runs
            report, line = soak(options.seed + number, seconds, Path(place), full=bool(number % 2))
        print(line, flush=True)
        wrong += len(report.failures)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
