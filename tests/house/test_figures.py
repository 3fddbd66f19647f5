"""The figures in the documents are those in the file of scripts/bench."""

from __future__ import annotations

from pathlib import Path

from scripts.bench_report import Figure, figures, keep, kept
from scripts.bench_sample import Sample
from scripts.draw import PICTURES, pages


def test_the_pages_show_the_figures_of_the_benchmarks() -> None:
    for path, text in pages().items():
        assert path.read_text() == text, "run scripts/pictures"
    assert (PICTURES / "tasks.svg").exists()


def test_figures_are_medians_and_take_the_place_of_older_ones(tmp_path: Path) -> None:
    runs = [
        Sample("read", ours, "s", "cat", theirs, most_ratio=0.5)
        for ours, theirs in ((1, 2), (2, 2), (9, 3))
    ]
    (measured,) = figures(runs)
    assert measured == Figure("read", "s", "cat", 2, 2, 1.0, None, 0.5, 3)
    assert measured.target == "<= 0.5 MISSED"
    other = figures([Sample("list", 1, "s", "ls", 4, most=2)])
    file = tmp_path / "bench.json"
    keep(file, [*figures(runs[:1]), *other])
    keep(file, [measured])
    assert [(each.what, each.ours, each.target) for each in kept(file)] == [
        ("read", 2, "<= 0.5 MISSED"),
        ("list", 1, "<= 2 s met"),
    ]
