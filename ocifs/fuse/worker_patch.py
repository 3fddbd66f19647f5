"""A patch of pyfuse3's scheduling: one worker answers several requests without leaving the loop's
turn.

pyfuse3 lets a different worker read each request. That takes two turns of trio's loop, a lock
passed between tasks, and a call of epoll, for requests that are often answered from memory. pyfuse3
finds its event loop through the name `trio` in its module, which its own support for asyncio
replaces. The patch replaces the same name by an object with another lock and another
`wait_readable`.

    wait_readable: up to MAX_CONSECUTIVE times in a row it polls the descriptor instead of waiting.
                   If nothing else is waiting, it may stop the loop for a millisecond to do so.
    WorkerLock:    a worker that releases the lock may take it again at once. Another worker gets it
                   as soon as the first waits for something else.

Rules that hold here:

- All other names of trio are unchanged.
- After MAX_CONSECUTIVE requests other tasks have their turn.
- The loop is never stopped while an operation is waiting (`Guard.busy`).
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from types import TracebackType

import pyfuse3
import trio

from ocifs.fuse.init_patch import InitPatch

MAX_CONSECUTIVE = 16
"""Requests that are answered before other tasks run: about a millisecond."""

_STOPPED_MS = 1
"""The longest time that the loop is stopped: the shortest timeout of poll(2)."""


class WorkerLock:
    """A lock without fairness: if it is free it is taken without a checkpoint, even if tasks wait
    for it.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        # Another worker may take the lock after this task was woken and before it runs.
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
    """trio.lowlevel with another `wait_readable`.

    `busy` returns whether an operation is waiting. `init` changes the first reply.
    """

    def __init__(
        self, busy: Callable[[], bool] = lambda: False, init: InitPatch | None = None
    ) -> None:
        self._busy = busy
        self._init = init or InitPatch(enabled=False)
        self._pollers: dict[int, select.poll] = {}
        self._answered = 0
        # Whether the previous request arrived within the time that the loop may be stopped.
        self._quick = False

    def __getattr__(self, name: str) -> object:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request. Returns at once if there is one already."""
        self._init.before_wait(descriptor)
        await self._wait_readable(descriptor)
        self._init.before_receive(descriptor)

    async def _wait_readable(self, descriptor: int) -> None:
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
        # If a stop was in vain, requests arrive more slowly: the next wait does not stop the loop.
        self._quick = not stop and trio.current_time() - began < _STOPPED_MS / 1000


class _PatchedTrio:
    """trio with the lock and the lowlevel module above."""

    Lock = WorkerLock

    def __init__(self, busy: Callable[[], bool], init: InitPatch) -> None:
        self.lowlevel = WorkerLowlevel(busy, init)

    def __getattr__(self, name: str) -> object:
        return getattr(trio, name)


def patch_workers(busy: Callable[[], bool]) -> None:
    """Patch pyfuse3 for mounts that are made from now on. `busy` is as for `WorkerLowlevel`."""
    pyfuse3.trio = _PatchedTrio(busy, InitPatch())  # type: ignore[attr-defined]
