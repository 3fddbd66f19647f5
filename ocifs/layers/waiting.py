"""Runs several tasks at once, and work that cannot report progress itself.

Tasks of a mount call this on the event loop.

Rules:

- The first OcifsError is raised as itself, not in an exception group.
- All tasks have ended when a function returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ocifs.concurrency import in_thread, note_progress, ungrouped
from ocifs.errors import OcifsError

T = TypeVar("T")

_INTERVAL = 1  # seconds between two reports of progress


async def run_with_progress(work: Callable[[], T]) -> T:
    """Run bounded work in a thread, and report progress as long as it runs."""

    async def report() -> None:
        while True:
            note_progress()
            await trio.sleep(_INTERVAL)

    with ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report)
            result = await in_thread(work)
            nursery.cancel_scope.cancel()
    return result


async def run_concurrently(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Run the work for each number at once. The first OcifsError cancels the rest."""
    errors: list[OcifsError] = []

    async def run(number: int) -> None:
        try:
            await work(number)
        except OcifsError as error:
            # Not raised here, since the nursery would wrap it in a group.
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(run, number)
    if errors:
        raise errors[0]
