"""Waiting for blocks that another process fetches.

Called by one read at a time, in the event loop. The other process shows what it does only through
the map: locks on spans, and blocks that appear in them.

Rules that hold here: every wait ends. A process that dies loses its locks at once. One that writes
no block for a while, since it was stopped or its registry is silent, has abandoned all spans that
it holds without progress, and no read waits for these again.
"""

from __future__ import annotations

import trio

from ocifs.concurrency import note_progress
from ocifs.store.blobs.open_blob import OpenBlob
from ocifs.store.blobs.partial import Partial

_FIRST_LOOK, _LOOK = 0.002, 0.05  # seconds between two looks, at first and at most
_SPANS = 64  # that are held in one blob at a time, as far as they are looked at

MOMENT = 0.005  # seconds


class OtherProcess:
    """What one read has seen of other processes that fetch what it waits for.

    `patience`: seconds without a new block.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._pause = _FIRST_LOOK
        self._seen: dict[
            tuple[int, int], int | None
        ] = {}  # the spans that are held, and the first missing block of each
        self._front: int | None = None
        self._since = 0.0
        self._untrusted: float | None = None

    def has_left(self, opened: OpenBlob, missing: int) -> bool:
        """Whether the process that holds a block was found to fetch nothing."""
        return any(start <= missing < stop for start, stop in opened.abandoned)

    async def wait(self, opened: OpenBlob, missing: int) -> bool:
        """Give another process some time to fetch a block; False, and what it holds is abandoned,
        when it has had enough.
        """
        partial = opened.files
        span = partial.map.held(missing, missing + 1)
        front = partial.first_missing(span[0], missing + 1) if span is not None else missing
        if front != self._front:  # also at the first look
            self._front, self._since, self._pause = front, trio.current_time(), _FIRST_LOOK
            self._seen = _held(partial)
            note_progress()
        elif trio.current_time() - self._since > self._patience:
            now = _held(partial)
            without_progress = [
                span for span, first in now.items() if self._seen.get(span, -1) == first
            ]
            opened.abandoned = [*opened.abandoned, *without_progress, (missing, missing + 1)][
                -_SPANS:
            ]
            return False
        with trio.move_on_after(self._pause):
            await opened.changed.wait()
        self._pause = min(_LOOK, self._pause * 2)
        return True

    async def wait_for_trust(self, opened: OpenBlob) -> bool:
        """Give another process a moment to finish a block that fails its checksum and is locked;
        False when it has had enough.
        """
        now = trio.current_time()
        self._untrusted = now if self._untrusted is None else self._untrusted
        if now - self._untrusted > self._patience:
            self._untrusted = None
            return False
        await trio.sleep(MOMENT)
        return True


def _held(partial: Partial) -> dict[tuple[int, int], int | None]:
    """Spans that other processes hold, as far as blocks are missing in them, and the first of
    those.
    """
    found: dict[tuple[int, int], int | None] = {}
    todo = [(0, partial.blocks)]
    while todo and len(found) < _SPANS:
        first, last = todo.pop()
        span = partial.map.held(first, last) if first < last else None
        if span is not None:
            start, stop = max(span[0], first), min(span[1], last)
            found[start, stop] = partial.first_missing(start, stop)
            todo += [(first, start), (stop, last)]
    return found


async def may_verify(partial: Partial, patience: float) -> bool:
    """Wait until this process has the map's header to itself, or another process has verified the
    whole (False).
    """
    end = trio.current_time() + patience
    while not partial.map.verified:
        if partial.map.try_lock_header() or trio.current_time() > end:
            return True
        await trio.sleep(MOMENT)
        note_progress()
    return False
