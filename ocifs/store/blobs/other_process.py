"""Waiting for blocks that another process fetches.

Called in the event loop, by one read at a time. The other process is visible only through the map:
locks on spans, and blocks that appear in them.

- Every wait ends.
- A process that dies loses its locks at once.
- A process may write no block for a while, since it was stopped or its registry does not answer.
  Then all its spans without progress are abandoned, and no read waits for them again.
"""

from __future__ import annotations

import trio

from ocifs.concurrency import note_progress
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.open_blob import OpenBlob

_FIRST_LOOK, _LOOK = 0.002, 0.05  # seconds between two looks, at first and at most
_SPANS = 64  # the most locked spans of one blob that are considered

_MOMENT = 0.005  # seconds


class OtherProcess:
    """The progress of other processes, as one read sees it. `wait`: seconds without a new block."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._pause = _FIRST_LOOK
        # The locked spans, and the first missing block of each.
        self._seen: dict[tuple[int, int], int | None] = {}
        self._front: int | None = None
        self._since = 0.0
        self._untrusted: float | None = None

    def has_abandoned(self, opened: OpenBlob, missing: int) -> bool:
        """Whether the process that has locked a block was found to fetch nothing."""
        return any(start <= missing < stop for start, stop in opened.abandoned)

    async def wait(self, opened: OpenBlob, missing: int) -> bool:
        """Wait a moment for a block. False: the time is up, and its span is abandoned."""
        blocks = opened.blocks
        span = blocks.map.held(missing, missing + 1)
        front = blocks.first_missing(span[0], missing + 1) if span is not None else missing
        if front != self._front:  # also at the first look
            self._front, self._since, self._pause = front, trio.current_time(), _FIRST_LOOK
            self._seen = _locked_spans(blocks)
            note_progress()
        elif trio.current_time() - self._since > self._wait:
            stalled = [
                span
                for span, first in _locked_spans(blocks).items()
                # -1 is never a first missing block, but None is that of a span without any.
                if self._seen.get(span, -1) == first
            ]
            abandoned = [*opened.abandoned, *stalled, (missing, missing + 1)]
            opened.abandoned = abandoned[-_SPANS:]
            return False
        # Another process cannot wake this task, so its progress is polled.
        with trio.move_on_after(self._pause):
            await opened.changed.wait()
        self._pause = min(_LOOK, self._pause * 2)
        return True

    async def wait_for_trust(self) -> bool:
        """Wait a moment for a locked block that fails its checksum, since it may be half written.

        False: the time is up.
        """
        now = trio.current_time()
        self._untrusted = now if self._untrusted is None else self._untrusted
        if now - self._untrusted > self._wait:
            self._untrusted = None
            return False
        await trio.sleep(_MOMENT)
        return True


def _locked_spans(blocks: BlobBlocks) -> dict[tuple[int, int], int | None]:
    """Spans that other processes have locked, and the first missing block of each."""
    spans: dict[tuple[int, int], int | None] = {}
    todo = [(0, blocks.count)]
    while todo and len(spans) < _SPANS:
        first, last = todo.pop()
        span = blocks.map.held(first, last) if first < last else None
        if span is not None:
            start, stop = max(span[0], first), min(span[1], last)
            spans[start, stop] = blocks.first_missing(start, stop)
            todo += [(first, start), (stop, last)]
    return spans
