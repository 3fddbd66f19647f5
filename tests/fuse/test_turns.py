"""The lock and the way to wait that pyfuse3's workers are given."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pyfuse3
import pytest
import trio
import trio.testing

from ocifs.fuse.worker_patch import (
    MAX_CONSECUTIVE,
    WorkerLock,
    WorkerLowlevel,
    patch_workers,
)


def test_pyfuse3_gets_this_lock_and_the_rest_of_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfuse3, "trio", trio)
    patch_workers(lambda: False)
    patched = pyfuse3.trio
    assert isinstance(patched.Lock(), WorkerLock)
    assert isinstance(patched.lowlevel, WorkerLowlevel)
    assert patched.open_nursery is trio.open_nursery


async def test_a_worker_that_waits_for_something_else_leaves_the_lock_to_the_next() -> None:
    lock, order = WorkerLock(), list[str]()

    async def worker(name: str) -> None:
        for _ in range(2):
            async with lock:
                order.append(name)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(worker, name)
    assert sorted(order) == [*"aabbcc"]


async def test_a_worker_that_waits_for_nothing_keeps_its_turn() -> None:
    lock, order = WorkerLock(), list[str]()

    async def worker(name: str) -> None:
        for _ in range(3):
            async with lock:
                order.append(name)

    async with lock, trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(worker, name)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(worker, "c")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not order, "nobody may have it while it is held"
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(worker, name)
    assert order in ([*"aaabbb"], [*"bbbaaa"])


async def test_one_who_gave_up_is_not_waited_for() -> None:
    lock = WorkerLock()
    reached: list[str] = []

    async def worker(scope: trio.CancelScope, name: str) -> None:
        with scope:
            async with lock:
                reached.append(name)

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(3)]
        async with lock:
            for scope, name in zip(scopes, "abc", strict=True):
                nursery.start_soon(worker, scope, name)
                await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()
            scopes[1].cancel()
            await trio.testing.wait_all_tasks_blocked()
    assert reached == ["c"]


async def test_others_have_their_turn_however_much_the_kernel_asks() -> None:
    lowlevel = WorkerLowlevel()
    reads, writes = os.pipe()
    os.write(writes, b"a request that is always there")
    turns: list[bool] = []

    async def other() -> None:
        turns.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(MAX_CONSECUTIVE):
            await lowlevel.wait_readable(reads)
        assert not turns
        for _ in range(2 * MAX_CONSECUTIVE):
            await lowlevel.wait_readable(reads)
        assert turns
    os.close(reads)
    os.close(writes)


async def test_a_request_that_comes_later_is_waited_for() -> None:
    lowlevel = WorkerLowlevel()
    reads, writes = os.pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lowlevel.wait_readable, reads)
        await trio.testing.wait_all_tasks_blocked()
        os.write(writes, b"x")
    os.close(reads)
    os.close(writes)


class Recorded:
    """poll(2), and for how many milliseconds each call was ready to stop the loop."""

    def __init__(self) -> None:
        self.stops: list[float] = []
        self._poll = select.poll()

    def register(self, descriptor: int, events: int) -> None:
        self._poll.register(descriptor, events)

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        self.stops.append(milliseconds)
        return self._poll.poll(milliseconds)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setattr("ocifs.fuse.worker_patch.select.poll", lambda: recorded)
    return recorded


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    yield reads, writes
    os.close(reads)
    os.close(writes)


async def ask_when_waited_for(lowlevel: WorkerLowlevel, pipe: tuple[int, int]) -> None:
    """A request that comes at once, but not before the loop waits for it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lowlevel.wait_readable, pipe[0])
        await trio.testing.wait_all_tasks_blocked()
        os.write(pipe[1], b"x")
    os.read(pipe[0], 1)


async def test_the_loop_is_stopped_for_who_asks_on_at_once_and_not_twice_in_vain(
    recorded: Recorded, pipe: tuple[int, int], mock_clock: object
) -> None:
    lowlevel = WorkerLowlevel()
    for _ in range(4):
        await ask_when_waited_for(lowlevel, pipe)  # which nobody can while the loop is stopped
    assert [stop > 0 for stop in recorded.stops] == [False, True, False, True]


async def test_the_loop_is_not_stopped_for_who_asks_later(
    recorded: Recorded, pipe: tuple[int, int], autojump_clock: object
) -> None:
    lowlevel = WorkerLowlevel()
    for _ in range(4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lowlevel.wait_readable, pipe[0])
            await trio.sleep(0.01)
            os.write(pipe[1], b"x")
        os.read(pipe[0], 1)
    assert recorded.stops == [0, 0, 0, 0]


async def test_the_loop_is_never_stopped_while_an_operation_is_under_way(
    recorded: Recorded, pipe: tuple[int, int]
) -> None:
    lowlevel = WorkerLowlevel(lambda: True)
    for _ in range(3):
        await ask_when_waited_for(lowlevel, pipe)
    assert recorded.stops == [0, 0, 0]
