"""Draw the pictures of the documents: a terminal session, and the times of tasks.

    scripts/pictures [session | figures]

Writes docs/pictures/session.svg from a recorded session (scripts/recording.py), which needs root.
Writes docs/pictures/tasks.svg and the tables of figures from docs/explanation/bench.json, which
`scripts/bench --json` writes. The same input gives the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench_report import Figure, kept, with_unit
from scripts.draw_session import session_svg
from scripts.recording import new_recording

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
FIGURES = ROOT / "docs/explanation/bench.json"
PAGE = ROOT / "docs/explanation/performance.md"
COMPARISON = ROOT / "docs/explanation/comparison.md"
TARGETS = ROOT / "docs/decisions/0055-performance-targets.md"
NEIGHBOURS = ("skopeo", "ratarmount", "nydus", "curl")  # peers on the page of the comparison
BEGIN, END = "<!-- From bench.json, by scripts/pictures. -->", "<!-- To here. -->"
BOUNDS = ("the limit", "0.6 s")  # peers that are not programs
# Lower limits that are not programs of a user: on the page for developers only.
ARTIFICIAL = (
    "json.loads",
    "import of its libraries",
    "bytes read",
    "after 10,000",
    "the same from memory, bare pyfuse3",
    "python -c pass",
)
TASKS = (
    "read one file of an image",
    "mount, read one file",
    "read another file later",
    "list the files of an image",
    "compare two releases",
    "find the tags that have a file",
    "read the configs of all tags",
    "read every file",
)


def session() -> None:
    """Record a session, and write its picture and the block of the README."""
    (PICTURES / "session.svg").write_text(session_svg(new_recording()))


def tasks(measured: Sequence[Figure]) -> None:
    """Draw two bars for each task of a user: the seconds of ocifs, and those of its peer."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ocifs"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.62 * len(measured) + 1.4))
    longest = max(max(each.ours, each.theirs) for each in measured)
    for place, each in enumerate(measured):
        for offset, seconds, color, label in (
            (-0.2, each.ours, "#2a9d6f", f"{seconds_of(each.ours)}  ocifs"),
            (0.2, each.theirs, "#9aa5b1", f"{seconds_of(each.theirs)}  {each.peer}"),
        ):
            axes.barh(place + offset, seconds, height=0.36, color=color)
            axes.text(seconds + longest * 0.01, place + offset, label, va="center", fontsize=8)
    axes.set_yticks(range(len(measured)), [each.what for each in measured], fontsize=9)
    axes.set_xlim(0, longest * 1.45)
    axes.invert_yaxis()
    axes.set_title("Seconds for tasks with an image (shorter is better)", fontsize=10, loc="left")
    axes.set_xlabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURES / "tasks.svg", metadata={"Date": None})


def seconds_of(value: float) -> str:
    """Seconds with two significant digits."""
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


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
    with_peers = [each for each in every if each.peer not in (*BOUNDS, *ARTIFICIAL)]
    compared = [each for each in every if each.peer.startswith(NEIGHBOURS)]
    targets = [each for each in every if each.target or each.peer in ARTIFICIAL]
    return {
        PAGE: page(PAGE.read_text(), with_peers),
        COMPARISON: page(COMPARISON.read_text(), compared),
        TARGETS: page(TARGETS.read_text(), targets, targets=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=("session", "figures"), help="only this part")
    part = parser.parse_args().part
    PICTURES.mkdir(exist_ok=True)
    if part in (None, "session"):
        session()
    if part in (None, "figures"):
        measured = {each.what: each for each in kept(FIGURES) if each.peer not in ARTIFICIAL}
        tasks([measured[what] for what in TASKS if what in measured])
        for path, text in pages().items():
            path.write_text(text)


if __name__ == "__main__":
    main()
