"""Work on the items of a verb at the same time, in the event loop.

- Items begin in their order, AT_A_TIME of them at once.
- The first error ends all of them, and is raised as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from ocifs.concurrency import ungrouped

T = TypeVar("T")

# Enough to hide the latency of small layers. Large ones share the connections of the host.
AT_A_TIME = 4


async def side_by_side(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Call `work` for each item. Raises the error of the first call that fails."""
    waiting = iter(items)

    async def take() -> None:
        # No await between two items, so each is taken by one task.
        for item in waiting:
            await work(item)

    with ungrouped():
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(take)
