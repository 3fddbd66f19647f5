"""Deadlines and single-flight, with trio's mock clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ocifs.concurrency import SingleFlight, deadline, note_progress
from ocifs.errors import DeadlineExceeded, Unreachable


async def test_patience_ends_without_progress(autojump_clock) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded), deadline(30, 300):
        await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(30)


async def test_progress_extends_patience_up_to_its_end(autojump_clock) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded), deadline(30, 100):
        while True:
            await trio.sleep(20)
            note_progress()
    assert trio.current_time() - began == pytest.approx(100)


async def test_progress_that_comes_after_the_end_does_not_hide_it(autojump_clock) -> None:
    with pytest.raises(DeadlineExceeded), deadline(30, 300):
        try:
            await trio.sleep_forever()
        finally:
            note_progress()  # from what was under way when the time was up


async def test_one_piece_of_work_serves_all_who_wait(autojump_clock) -> None:
    runs = []

    async def work() -> int:
        runs.append(1)
        await trio.sleep(5)
        return 42

    answers = []
    async with trio.open_nursery() as nursery:
        flights: SingleFlight[str, int] = SingleFlight(nursery)

        async def ask() -> None:
            answers.append(await flights.run("key", work))

        for _ in range(10):
            nursery.start_soon(ask)
    assert (answers, len(runs)) == ([42] * 10, 1)


async def test_a_caller_that_leaves_takes_nothing_from_the_others(autojump_clock) -> None:
    runs = []

    async def work() -> str:
        runs.append(1)
        await trio.sleep(10)
        return "done"

    async with trio.open_nursery() as nursery:
        flights: SingleFlight[str, str] = SingleFlight(nursery)

        async def impatient() -> None:
            with trio.move_on_after(1):
                await flights.run("key", work)

        nursery.start_soon(impatient)
        await wait_all_tasks_blocked(0.01)
        assert await flights.run("key", work) == "done"
    assert len(runs) == 1


async def test_a_failure_goes_to_each_waiter_once_and_the_next_tries_again(autojump_clock) -> None:
    runs = []

    async def work() -> None:
        runs.append(1)
        await trio.sleep(1)
        raise Unreachable("gone")

    async with trio.open_nursery() as nursery:
        flights: SingleFlight[str, None] = SingleFlight(nursery)
        failures = []

        async def ask() -> None:
            with pytest.raises(Unreachable):
                await flights.run("key", work)
            failures.append(1)

        for _ in range(5):
            nursery.start_soon(ask)
        await trio.sleep(2)
        assert (len(failures), len(runs)) == (5, 1)
        await ask()
        assert len(runs) == 2


async def test_progress_of_shared_work_reaches_every_waiter(autojump_clock) -> None:
    async def work() -> str:
        for _ in range(10):
            await trio.sleep(20)
            note_progress()
        return "done"

    async with trio.open_nursery() as nursery:
        flights: SingleFlight[str, str] = SingleFlight(nursery)
        answers = []

        async def ask() -> None:
            with deadline(30, 300):
                answers.append(await flights.run("key", work))

        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers == ["done", "done"]


async def test_work_that_is_ended_is_an_error_for_those_who_wait(autojump_clock) -> None:
    async with trio.open_nursery() as outside:
        async with trio.open_nursery() as inside:
            flights: SingleFlight[str, None] = SingleFlight(inside)

            async def ask() -> None:
                with pytest.raises(DeadlineExceeded):
                    await flights.run("key", trio.sleep_forever)

            outside.start_soon(ask)
            await wait_all_tasks_blocked(0.01)
            inside.cancel_scope.cancel()
