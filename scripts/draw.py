"""Draw the pictures of the documents: a terminal session, and the ratios of the benchmarks.

    scripts/pictures

Writes docs/pictures/session.svg from the output of scripts/demo. Writes docs/pictures/bench.svg
and the tables of figures from docs/explanation/bench.json, which `scripts/bench --json` writes.
The same input gives the same files.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts.bench_report import Figure, kept, with_unit

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
FIGURES = ROOT / "docs/explanation/bench.json"
PAGE = ROOT / "docs/explanation/performance.md"
COMPARISON = ROOT / "docs/explanation/comparison.md"
TARGETS = ROOT / "docs/decisions/0055-performance-targets.md"
NEIGHBOURS = ("skopeo", "ratarmount", "nydus", "curl")  # peers on the page of the comparison
BEGIN, END = "<!-- From bench.json, by scripts/pictures. -->", "<!-- To here. -->"
BOUNDS = ("the limit", "0.6 s")  # peers that are not programs
WIDTH = 110
SHOWN = (
    "ls mnt/_tags",
    "readlink",
    "cat mnt/_manifests/1.0/kind",
    "sha256sum mnt/_manifests/1.0",
    "find -L mnt/_manifests/1.0/rootfs",
    "cat mnt/_manifests/notes",
)


def session() -> None:
    """Draw the most interesting commands of the demo, as a terminal shows them."""
    from rich.console import Console
    from rich.text import Text

    done = subprocess.run(
        [ROOT / "scripts/demo"], capture_output=True, text=True, check=True, timeout=300
    )
    steps = re.split(r"^\$ ", done.stdout, flags=re.MULTILINE)[1:]
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, legacy_windows=False
        )
        for step in steps:
            command, _, output = step.partition("\n")
            if command.startswith(SHOWN):
                console.print(Text("$ ", style="green") + Text(command, style="bold"))
                console.print(Text(output.strip("\n")))
        svg = console.export_svg(title="ocifs", unique_id="session")
    # The picture must not load fonts from the network.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (PICTURES / "session.svg").write_text(svg)


def bench() -> None:
    """Draw one bar for each figure with a peer: the ratio of ocifs to the peer."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ocifs"
    from matplotlib import pyplot as plt

    shown = [
        each
        for each in kept(FIGURES)
        if each.unit in ("s", "MB") and each.theirs and each.peer not in BOUNDS
    ]
    labels = [f"{each.what}\n{each.peer}" for each in shown]
    ratios = [each.ratio for each in shown]
    figure, axes = plt.subplots(figsize=(10, 0.5 * len(shown) + 1.2))
    axes.barh(
        labels,
        [ratio - 1 for ratio in ratios],
        left=1,
        color=["#3a7" if ratio <= 1 else "#c85" for ratio in ratios],
    )
    axes.set_xscale("log")
    axes.axvline(1, color="#555", linewidth=1)
    for place, ratio in enumerate(ratios):
        left = ratio <= 1
        axes.text(
            ratio, place, f" {ratio:.2f} ", va="center", ha="right" if left else "left", fontsize=8
        )
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel("ocifs divided by the peer, measured in one run (less is better)")
    figure.tight_layout()
    figure.savefig(PICTURES / "bench.svg", metadata={"Date": None})


def rows(measured: Sequence[Figure], targets: bool) -> str:
    """A table of figures, with or without their targets."""
    header = ["measurement", "ocifs", "peer", "compared with", "ratio", *["target"] * targets]
    lines = [_row(header), "|" + "---|" * len(header)]
    for each in measured:
        ours, theirs = with_unit(each.ours, each.unit), with_unit(each.theirs, each.unit)
        cells = [each.what, ours, theirs, each.peer.replace("|", "\\|"), f"{each.ratio:.2f}"]
        lines.append(_row([*cells, *[each.target] * targets]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(text: str, measured: Sequence[Figure], targets: bool = False) -> str:
    """A page with a new table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{rows(measured, targets)}\n{END}{after}"


def pages() -> dict[Path, str]:
    """The pages with tables of figures, with their current content.

    Pages for users compare ocifs with other programs. The page for developers has the targets.
    """
    every = kept(FIGURES)
    with_peers = [each for each in every if each.peer not in BOUNDS]
    compared = [each for each in every if each.peer.startswith(NEIGHBOURS)]
    targets = [each for each in every if each.target]
    return {
        PAGE: page(PAGE.read_text(), with_peers),
        COMPARISON: page(COMPARISON.read_text(), compared),
        TARGETS: page(TARGETS.read_text(), targets, targets=True),
    }


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    session()
    if FIGURES.exists():
        bench()
        for path, text in pages().items():
            path.write_text(text)


if __name__ == "__main__":
    main()
