"""Bounds the memory of the decodings of a host's layers, for any number of readers.

A task of the event loop reserves the memory of a span before it reads the compressed bytes, and
releases it when the span is decoded.

Rules:

- Reservations are granted in the order of the requests.
- A reservation larger than the budget is granted when nothing else is reserved.
- A task that waits for the network has reserved memory that it does not use. If no reservation was
  released for `_PATIENCE` seconds, all of them are ignored, so that an unresponsive host does not
  delay the readers of cached bytes again and again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_PATIENCE = 0.5


class MemoryBudget:
    """A number of bytes, from which tasks reserve parts."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        # Incremented whenever all reservations are ignored: those of earlier epochs do not count.
        self._epoch = 0
        self._released = trio.Event()
        self._turn = trio.Lock()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Reserve bytes for the block; wait until they are free."""
        # A larger reservation could never be granted.
        size = min(size, self._size)
        # Locks of trio are fair, so the requests are granted in their order.
        async with self._turn:
            while self._free < size:
                released = self._released
                with trio.move_on_after(_PATIENCE) as waiting:
                    await released.wait()
                if waiting.cancelled_caught:
                    self._epoch += 1
                    self._free = self._size
            self._free -= size
            epoch = self._epoch
        try:
            yield
        finally:
            # A reservation of an earlier epoch was already given back.
            if epoch == self._epoch:
                self._free += size
            self._released.set()
            self._released = trio.Event()
