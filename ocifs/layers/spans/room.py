"""How much memory the decodings of a host's layers take at a time, whatever the number of readers.

Every decoding of a span takes its share before it reads the packed bytes, in a task of the event
loop, and gives it back when it is done.

Rules that hold here:
- Shares are given in the order in which they were asked for.
- A share larger than the room is given when the room is empty.
- A share whose holder waits for the network holds no memory. If no share came back for `_PATIENCE`,
  all of them are taken to be such: the room counts as empty, so that a host that is silent delays
  no reader of cached bytes again and again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_PATIENCE = 0.5


class Room:
    """So many bytes of memory, shared."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._round = 0  # counts how often the room was taken to be empty
        self._returned = trio.Event()
        self._turn = trio.Lock()

    @asynccontextmanager
    async def share(self, size: int) -> AsyncIterator[None]:
        """Take so many bytes for the block; wait until they are free."""
        size = min(size, self._size)
        async with self._turn:
            while self._free < size:
                returned = self._returned
                with trio.move_on_after(_PATIENCE) as waiting:
                    await returned.wait()
                if waiting.cancelled_caught:
                    self._round += 1
                    self._free = self._size
            self._free -= size
            taken_in = self._round
        try:
            yield
        finally:
            if taken_in == self._round:
                self._free += size
            self._returned.set()
            self._returned = trio.Event()
