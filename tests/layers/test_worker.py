"""The second thread of the pipeline: no piece is lost, no thread hangs, errors are raised."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ocifs.layers.indexing.worker import PipelineWorker

PIECES = [b"%d" % number for number in range(100)]


def test_every_piece_is_worked_on_in_order() -> None:
    with PipelineWorker(list[bytes]) as worker:
        assert all(worker.put(piece) for piece in PIECES)
    assert worker.result == PIECES


@pytest.mark.parametrize("after", [0, 3, 100])
def test_an_error_of_the_work_comes_out_and_whoever_puts_is_told(after: int) -> None:
    def work(pieces: Iterator[bytes]) -> None:
        for number, _ in enumerate(pieces):
            if number == after:
                break
        raise ValueError("the work")

    with pytest.raises(ValueError, match="the work"):
        with PipelineWorker(work) as worker:
            for piece in PIECES * 5:
                if not worker.put(piece):
                    break


def test_an_error_of_the_maker_ends_the_work() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError):
        with PipelineWorker(list[bytes]) as worker:
            worker.put(b"1")
            raise KeyError("the maker")
    assert worker.result == [b"1"]
    assert threading.active_count() == before


def test_work_that_wants_no_more_holds_nobody_up() -> None:
    with PipelineWorker(lambda pieces: next(pieces)) as worker:
        for piece in PIECES:
            worker.put(piece)
    assert worker.result == b"0"
