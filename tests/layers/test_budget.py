"""The memory budget of decodings: size and order, and reservations that wait for the network."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ocifs.layers.spans.budget import MemoryBudget


@pytest.mark.parametrize("sizes", [[1] * 20, [10] * 5, [3, 9, 1, 1, 7, 2, 10, 5], [25, 1, 40]])
async def test_shares_are_given_in_order_and_no_more_than_there_is(sizes: list[int]) -> None:
    budget, taken, order = MemoryBudget(10), [0], []

    async def hold(number: int, size: int) -> None:
        async with budget.reserve(size):
            order.append(number)
            taken[0] += min(size, 10)
            assert taken[0] <= 10
            await trio.testing.wait_all_tasks_blocked()
            taken[0] -= min(size, 10)

    async with trio.open_nursery() as nursery:
        for number, size in enumerate(sizes):
            nursery.start_soon(hold, number, size)
            await trio.testing.wait_all_tasks_blocked()
    assert order == [*range(len(sizes))]


async def test_holders_that_wait_for_the_network_delay_others_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = MemoryBudget(10)
    async with trio.open_nursery() as nursery:

        async def stuck() -> None:
            async with budget.reserve(5):
                await trio.sleep(100)

        nursery.start_soon(stuck)
        nursery.start_soon(stuck)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        for _ in range(1000):
            async with budget.reserve(10):
                pass
        assert trio.current_time() - began < 2
    async with budget.reserve(10):  # what the stuck ones gave back late is not counted twice
        with trio.move_on_after(0.1) as waiting:
            async with budget.reserve(1):
                pass
        assert waiting.cancelled_caught


async def test_a_waiter_that_is_cancelled_takes_nothing() -> None:
    budget = MemoryBudget(10)
    async with budget.reserve(10):
        with trio.move_on_after(0):
            async with budget.reserve(5):
                raise AssertionError("the budget is used up")
    with trio.fail_after(10):
        async with budget.reserve(10):
            pass
