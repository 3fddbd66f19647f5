"""The line of long commands: its rate, its estimate, and its last state."""

from __future__ import annotations

from ocifs.cli.progress_line import ProgressLine
from ocifs.settings import MIB


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_shows_layer_amount_rate_and_time_left() -> None:
    clock = Clock()
    line = ProgressLine(clock=clock)
    progress = line.progress
    progress.activity = "reading host/app:1"
    assert line.text() == "reading host/app:1"
    progress.begin("")
    progress.item = "layer"
    progress.expect(100 * MIB, items=4)
    assert line.text() == f"layer 1 of 4  [{'-' * 20}] 0 B of 100.0 MiB   0%"
    for _ in range(2):
        clock.now += 1
        progress.advance(10 * MIB)
        line.text()
    progress.finish_item()
    expected = f"layer 2 of 4  [{'####':-<20}] 20.0 MiB of 100.0 MiB  20%  10.0 MiB/s  8 s left"
    assert line.text() == expected
    progress.begin("unpacking")
    assert line.text().endswith("20%  unpacking")


def test_a_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    line = ProgressLine(clock=clock)
    line.progress.expect(1000 * MIB)
    for _ in range(20):
        clock.now += 0.5
        line.progress.advance(10 * MIB)
        line.text()
    assert "20.0 MiB/s" in line.text()
    for _ in range(12):
        clock.now += 0.5
        line.text()
    # Nothing arrives any more, so there is no estimate.
    assert line.text().endswith("20%  0 B/s")


def test_reused_content_is_done_but_not_transferred() -> None:
    clock = Clock()
    line = ProgressLine(clock=clock)
    line.progress.item = "blob"
    line.progress.expect(30 * MIB, items=2)
    clock.now += 4
    line.progress.advance(20 * MIB, reused=True)
    line.progress.advance(10 * MIB)
    line.progress.finish_item()
    line.progress.finish_item()
    assert "2.5 MiB/s" in line.text()
    assert line.summary() == "30.0 MiB in 4.0 s (2.5 MiB/s), 2 blobs; 20.0 MiB already present"


def test_a_growing_total_has_no_share_and_no_estimate() -> None:
    clock = Clock()
    line = ProgressLine("tag", clock=clock)
    line.progress.growing = True
    line.progress.expect(8)
    line.progress.advance(4)
    clock.now += 2
    assert line.text() == "4 of 8+ tags  2 tags/s"
    line.progress.growing = False
    assert line.text() == f"[{'##########':-<20}] 4 of 8 tags  50%  2 tags/s  2 s left"
    assert line.summary() == "4 tags in 2.0 s"
    assert line.interruption() == "4 of 8 tags"


def test_items_that_end_in_any_order_are_counted() -> None:
    line = ProgressLine()
    line.progress.item = "layer"
    line.progress.expect(2, items=2)
    assert line.text().startswith("layer 1 of 2")
    line.progress.finish_item()
    assert line.text().startswith("layer 2 of 2")
    line.progress.finish_item()
    assert line.text().startswith("layer 2 of 2")
