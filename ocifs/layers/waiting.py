"""Waiting for work of which there is more than one piece, or that reports no progress itself.

Tasks of a mount call this when they make trees of layers.

Rules that hold here: the first error of ours is raised as itself, not in a group; no work is left
behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ocifs.concurrency import in_thread, note_progress, ungrouped
from ocifs.errors import OcifsError
from ocifs.layers.merge.tree import MergedTree


async def run_with_progress(make: Callable[[], MergedTree]) -> MergedTree:
    """Work in a thread that waits for nobody, and whose bounds are those of its layers: as long as
    it lasts there is progress.
    """

    async def tell() -> None:
        while True:
            note_progress()
            await trio.sleep(1)

    with ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            tree = await in_thread(make)
            nursery.cancel_scope.cancel()
    return tree


async def run_concurrently(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Do the work for each number at once.

    The first error of ours is raised as itself, not in a group.
    """
    failed: list[OcifsError] = []

    async def one(number: int) -> None:
        try:
            await work(number)
        except OcifsError as error:
            failed.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    if failed:
        raise failed[0]
