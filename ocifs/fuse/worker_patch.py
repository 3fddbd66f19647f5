"""How pyfuse3's workers take turns: as long as the kernel has more to ask, one worker goes on
answering, without a turn of trio's loop.

pyfuse3 has each request read by another worker than the one before: two turns of the loop, a lock
handed over, and a file descriptor told to epoll, for what is often answered from memory. It takes
its event loop from its module's name `trio` (its own mode for asyncio sets that), so that a lock
and a way to wait can be given to it here.

Rules that hold here: everything else of trio is trio's own; after IN_A_ROW requests the loop has
its turn whatever is asked; whoever waits for the lock gets it as soon as a worker has to wait for
anything else.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from types import TracebackType

import pyfuse3
import trio

MAX_CONSECUTIVE = 16
"""Requests that are answered before other tasks have their turn: about a millisecond."""

_STOPPED_MS = 1
"""For how long the loop is stopped at the most. poll(2) knows no less."""


class WorkerLock:
    """A lock that is taken without a turn of the loop where it is free, even if others wait for it:
    who lets it go may take it again.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        while self._taken:
            task = trio.lowlevel.current_task()
            self._waiting.append(task)

            def leave(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._waiting.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(leave)
        self._taken = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._taken = False
        if self._waiting:
            trio.lowlevel.reschedule(self._waiting.popleft())


class WorkerLowlevel:
    """trio.lowlevel, with another way to wait for the kernel's next request.

    `busy`: whether somebody waits for anything but that.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self._busy = busy
        self._pollers: dict[int, select.poll] = {}
        self._answered = 0
        self._quick = False  # whether the last request that was waited for came at once

    def __getattr__(self, name: str) -> object:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Until there is a request; at once where one is there already."""
        poller = self._pollers.get(descriptor)
        if poller is None:
            poller = self._pollers[descriptor] = select.poll()
            poller.register(descriptor, select.POLLIN)
        stop = False
        if self._answered < MAX_CONSECUTIVE:
            stop = self._quick and not self._busy()
            if poller.poll(_STOPPED_MS if stop else 0):
                self._answered += 1
                return
        self._answered = 0
        began = trio.current_time()
        await trio.lowlevel.wait_readable(descriptor)
        self._quick = not stop and trio.current_time() - began < _STOPPED_MS / 1000


class _PatchedTrio:
    """trio, with these."""

    WorkerLock = WorkerLock

    def __init__(self, busy: Callable[[], bool]) -> None:
        self.lowlevel = WorkerLowlevel(busy)

    def __getattr__(self, name: str) -> object:
        return getattr(trio, name)


def patch_workers(busy: Callable[[], bool]) -> None:
    """Have pyfuse3's workers take turns so, in mounts that are made from now on.

    `busy` as for Lowlevel.
    """
    pyfuse3.trio = _PatchedTrio(busy)  # type: ignore[attr-defined]
