"""What scripts/bench says of its samples: a table for people, and figures that are kept for the
documents.

Rules that hold here: of several runs the median is shown, and the median of each run's ratio;
figures that are kept replace those of the same name, so that groups can be measured one after the
other.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.bench_sample import Sample


@dataclass(frozen=True)
class Figure:
    """The medians of one thing that was measured: `ratio` of each run's ratio."""

    what: str
    unit: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    most: float | None
    most_ratio: float | None
    runs: int

    @property
    def target(self) -> str:
        """The target and whether it is met, or nothing."""
        if self.most_ratio is not None:
            return (
                f"<= {self.most_ratio:.3g} {'met' if self.ratio <= self.most_ratio else 'MISSED'}"
            )
        if self.most is not None:
            return f"<= {with_unit(self.most, self.unit)} {'met' if self.ours <= self.most else 'MISSED'}"
        return ""


def with_unit(value: float, unit: str) -> str:
    """A figure as it is shown."""
    shown = f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def figures(samples: Sequence[Sample]) -> Iterator[Figure]:
    """One for each thing that was measured."""
    for what, peer in dict.fromkeys((sample.what, sample.peer) for sample in samples):
        same = [sample for sample in samples if (sample.what, sample.peer) == (what, peer)]
        yield Figure(
            what,
            same[0].unit,
            peer,
            statistics.median(sample.ours for sample in same),
            statistics.median(sample.theirs or 0 for sample in same),
            statistics.median(
                sample.ours / sample.theirs if sample.theirs else 0 for sample in same
            ),
            same[0].most,
            same[0].most_ratio,
            len(same),
        )


def table(measured: Sequence[Figure]) -> Iterator[str]:
    """The lines of the report."""
    yield f"{'what':48} {'ocifs':>11} {'peer':>11} {'ratio':>6}  {'target':18} against"
    for each in measured:
        ours, theirs = with_unit(each.ours, each.unit), with_unit(each.theirs, each.unit)
        yield f"{each.what:48} {ours:>11} {theirs:>11} {each.ratio:6.2f}  {each.target:18} {each.peer}"


def keep(file: Path, measured: Sequence[Figure]) -> None:
    """Put figures into a file of JSON, in place of those of the same name."""
    known = {(each.what, each.peer): each for each in kept(file)} if file.exists() else {}
    known.update({(each.what, each.peer): each for each in measured})
    file.write_text(json.dumps([asdict(each) for each in known.values()], indent=1) + "\n")


def kept(file: Path) -> list[Figure]:
    """The figures of a file."""
    return [Figure(**each) for each in json.loads(file.read_text())]
