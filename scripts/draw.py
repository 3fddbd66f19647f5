"""Draw the documents' pictures: a session as a terminal shows it, and the bench's figures as ratios.

    scripts/pictures

Writes docs/pictures/session.svg from what scripts/demo prints, and docs/pictures/bench.svg from docs/explanation/bench.json, which
`scripts/bench --json` writes. Both are the same for the same input.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
FIGURES = ROOT / "docs/explanation/bench.json"
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
    """The demo's most telling commands, as a terminal shows them."""
    from rich.console import Console
    from rich.text import Text

    done = subprocess.run([ROOT / "scripts/demo"], capture_output=True, text=True, check=True, timeout=300)
    steps = re.split(r"^\$ ", done.stdout, flags=re.MULTILINE)[1:]
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, legacy_windows=False)
        for step in steps:
            command, _, output = step.partition("\n")
            if command.startswith(SHOWN):
                console.print(Text("$ ", style="green") + Text(command, style="bold"))
                console.print(Text(output.strip("\n")))
        svg = console.export_svg(title="ocifs", unique_id="session")
    # A picture in a document asks nobody for fonts.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (PICTURES / "session.svg").write_text(svg)


def bench() -> None:
    """One bar a figure that has a peer: how long ours takes for each second of theirs."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ocifs"
    from matplotlib import pyplot as plt

    samples = [each for each in json.loads(FIGURES.read_text())["samples"] if each["theirs"]]
    labels = [f"{each['what']}\n(peer: {each['peer']})" for each in samples]
    ratios = [each["ours"] / each["theirs"] for each in samples]
    figure, axes = plt.subplots(figsize=(9, 0.7 * len(samples) + 1.2))
    axes.barh(labels, ratios, color=["#3a7" if ratio <= 1 else "#c85" for ratio in ratios])
    axes.axvline(1, color="#555", linewidth=1)
    for place, ratio in enumerate(ratios):
        axes.text(ratio, place, f" {ratio:.2f}", va="center")
    axes.invert_yaxis()
    axes.set_xlabel("ocifs' figure divided by the peer's, in one run (less is better)")
    figure.tight_layout()
    figure.savefig(PICTURES / "bench.svg", metadata={"Date": None})


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    session()
    if FIGURES.exists():
        bench()


if __name__ == "__main__":
    main()
