"""Waiting for blocks that another process fetches.

Rules that hold here: nobody is waited for without end. A process that dies loses its locks at once; one that brings nothing for a while
is not waited for any longer.
"""

from __future__ import annotations

import trio

from ocifs.concurrency import note_progress
from ocifs.store.opened import OpenBlob
from ocifs.store.partial import Partial

_FIRST_LOOK, _LOOK = 0.002, 0.05  # seconds between two looks, at first and at most

MOMENT = 0.005  # seconds


class Neighbour:
    """What one read knows of others who fetch what it waits for. `patience`: seconds without a new block."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._pause = _FIRST_LOOK
        self._front: int | None = None
        self._since = 0.0

    async def wait(self, opened: OpenBlob, missing: int) -> bool:
        """Give another process some time to bring a block; False when it has had enough."""
        partial = opened.partial
        assert partial is not None
        span = partial.map.held(missing, missing + 1)
        front = partial.map.first_missing(span[0], missing + 1) if span is not None else missing
        if front != self._front:  # also at the first look
            self._front, self._since, self._pause = front, trio.current_time(), _FIRST_LOOK
            note_progress()
        elif trio.current_time() - self._since > self._patience:
            return False
        with trio.move_on_after(self._pause):
            await opened.changed.wait()
        self._pause = min(_LOOK, self._pause * 2)
        return True


async def may_verify(partial: Partial, patience: float) -> bool:
    """Wait until this process has the header of the map to itself, or somebody else has verified the whole (False)."""
    end = trio.current_time() + patience
    while not partial.map.verified:
        if partial.map.try_header() or trio.current_time() > end:
            return True
        await trio.sleep(MOMENT)
        note_progress()
    return False
