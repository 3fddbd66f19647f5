"""The reports of scripts/bench: a table, and a file of figures for the documents.

Rules that hold here:
- A figure is the median of several runs. A ratio is the median of the ratios of the runs.
- A new figure in the file replaces the figure of the same name, so groups can be measured one by
  one.
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
    """The medians of one measurement. `ratio` is the median of the ratios of the runs."""

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
        """The target, and whether it is met. Empty without a target."""
        if self.most_ratio is not None:
            return (
                f"<= {self.most_ratio:.3g} {'met' if self.ratio <= self.most_ratio else 'MISSED'}"
            )
        if self.most is not None:
            result = "met" if self.ours <= self.most else "MISSED"
            return f"<= {with_unit(self.most, self.unit)} {result}"
        return ""


def with_unit(value: float, unit: str) -> str:
    """A figure, formatted with its unit."""
    shown = f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def figures(samples: Sequence[Sample]) -> Iterator[Figure]:
    """The figure of each measurement."""
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
        values = f"{ours:>11} {theirs:>11} {each.ratio:6.2f}"
        yield f"{each.what:48} {values}  {each.target:18} {each.peer}"


def keep(file: Path, measured: Sequence[Figure]) -> None:
    """Add figures to a JSON file, and replace those of the same name."""
    known = {(each.what, each.peer): each for each in kept(file)} if file.exists() else {}
    known.update({(each.what, each.peer): each for each in measured})
    file.write_text(json.dumps([asdict(each) for each in known.values()], indent=1) + "\n")


def kept(file: Path) -> list[Figure]:
    """The figures in a file."""
    return [Figure(**each) for each in json.loads(file.read_text())]
