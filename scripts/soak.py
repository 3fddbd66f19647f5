"""Soak test: run a mount through faults, kills, evictions and changes, and compare every byte.

    scripts/soak [--minutes M] [--seed N] [--runs R]
                 [--crowd | --fuzz | --model | --overlay | --mutants [WORD]]

Prints a line of JSON for each run, and exits with 1 after a failure. Every other run verifies in
full, and its faults include corrupt content.

- `--crowd`: four mounts share a cache that is too small, with eight processes of sixteen readers
  each, without faults.
- `--fuzz`: untrusted inputs of every kind are generated and tried, without a mount.
- `--model`: Hypothesis chooses the operations, the clock of the daemons is moved, and a model
  checks every result.
- `--overlay`: random stacks of layers are compared with overlayfs (needs root).
- `--mutants`: faulty variants of ocifs, for at most `--minutes` each. WORD selects them by name.
  The soak must detect nine of ten. A mutant that no longer applies, or whose code never runs, is a
  failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.fuzz import fuzz
from tests.layers.overlaid import compare_for
from tests.soak.crowd import crowd
from tests.soak.driver import FAILURES, Plan, soak
from tests.soak.machine import drive_for
from tests.soak.mutants import MUTANTS, try_mutant

SHARE_KILLED = 0.9


def try_mutants(word: str, seconds: float, seed: int) -> int:
    """Run the soak on every mutant with `word` in its name, and on unchanged ocifs."""
    verdicts: list[str] = []
    for mutant in [each for each in MUTANTS if word in each.name]:
        with tempfile.TemporaryDirectory(prefix="ocifs-mutant-") as place:
            verdict = try_mutant(mutant, seconds, seed, Path(place))
        print(verdict.line(), flush=True)
        verdicts.append(verdict.word)
    killed = verdicts.count("killed")
    tried = {"killed", "survived", "noticed by something else"}
    in_order = killed >= SHARE_KILLED * len(verdicts) and set(verdicts) <= tried
    print(json.dumps({"mutants": len(verdicts), "killed": killed, "in order": in_order}))
    return 0 if in_order else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="length of all runs together (default: 5)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first run, counted up for the next ones"
    )
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument(
        "--crowd",
        action="store_true",
        help="many readers and mounts share one cache, without faults",
    )
    parser.add_argument(
        "--fuzz",
        action="store_true",
        help="untrusted inputs and damaged files, without a mount",
    )
    parser.add_argument(
        "--model",
        action="store_true",
        help="operations by Hypothesis, checked by a model, with a clock that jumps",
    )
    parser.add_argument(
        "--overlay", action="store_true", help="random stacks of layers, compared with overlayfs"
    )
    parser.add_argument(
        "--mutants", nargs="?", const="", metavar="WORD", help="faulty variants of ocifs"
    )
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND",
        help="begin with this fault; repeatable",
    )
    options = parser.parse_args()
    if options.mutants is not None:
        return try_mutants(options.mutants, options.minutes * 60, options.seed)
    if options.overlay:
        count, differing = compare_for(options.minutes * 60, options.seed, time.monotonic)
        print(json.dumps({"stacks": count, "first seed": options.seed, "differences": differing}))
        return 1 if differing else 0
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
            plan = Plan(bool(number % 2), 1 if options.first else FAILURES, tuple(options.fault))
            report, line = soak(options.seed + number, seconds, Path(place), plan)
        print(line, flush=True)
        wrong += len(report.failures)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
