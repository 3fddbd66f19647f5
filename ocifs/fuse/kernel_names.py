"""The names that the kernel has cached for a limited time, so that they can be invalidated.

`Operations` records each name that it sends, and `_Refresher` in mounting.py invalidates them. All
of it happens in the event loop, except the calls of the kernel. These run in a worker thread: the
kernel locks the directory, and a lookup in it must be answered meanwhile.

- A directory is left alone while a lookup in it is in progress. Otherwise a call would wait as long
  as that lookup, and the daemon could not end before it.
- Names below a digest never change, and are not recorded.
- The oldest name is dropped when its lifetime is over, as another one is recorded. Of more than
  MAX_NAMES the oldest is dropped first: the kernel then uses it until its lifetime is over.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

import pyfuse3
import trio

from ocifs.concurrency import in_thread
from ocifs.fuse.inodes import Inode
from ocifs.tree.node import FOREVER

MAX_NAMES = 100_000
_CLOSE_SECONDS = 5.0


class KernelNames:
    """The recorded names: their directories, and the times until which the kernel may use them.

    `close` must be called before the session ends, which no call may outlive.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Not a dict: its first key is found in a time that grows with the number of deleted ones.
        self._until: OrderedDict[tuple[Inode, bytes], float] = OrderedDict()
        # Directories with lookups in progress, each with their number.
        self._lookups: Counter[Inode] = Counter()
        self._ended = trio.lowlevel.ParkingLot()
        # Held by the worker thread during each call of the kernel.
        self._calling = threading.Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._until)

    def record(self, parent: Inode, name: bytes, lifetime: float) -> None:
        """Record a name, or the absence of a name, that is sent to the kernel."""
        if lifetime == FOREVER or lifetime <= 0:
            return
        key, now = (parent, name), self._clock()
        self._until[key] = now + lifetime
        self._until.move_to_end(key)
        # Two for each one that is added: a listing adds 100,000, and no request must sweep them.
        for _ in range(2):
            oldest = next(iter(self._until))
            if len(self._until) <= MAX_NAMES and self._until[oldest] > now:
                break
            del self._until[oldest]

    def take(self) -> dict[Inode, list[bytes]]:
        """Remove and return the names that the kernel may still use, by directory."""
        return self._grouped(self._taken())

    def _taken(self) -> OrderedDict[tuple[Inode, bytes], float]:
        taken, self._until = self._until, OrderedDict()
        return taken

    def _grouped(self, taken: OrderedDict[tuple[Inode, bytes], float]) -> dict[Inode, list[bytes]]:
        now = self._clock()
        names: dict[Inode, list[bytes]] = {}
        for (parent, name), until in taken.items():
            if until > now:
                names.setdefault(parent, []).append(name)
        return names

    @contextlib.contextmanager
    def looking_up(self, parent: Inode) -> Iterator[None]:
        """A block in which the kernel waits for the lookup of a name in a directory."""
        self._lookups[parent] += 1
        try:
            yield
        finally:
            self._lookups[parent] -= 1
            if not self._lookups[parent]:
                del self._lookups[parent]
                self._ended.unpark_all()

    async def invalidate(self) -> None:
        """Make the kernel forget the recorded names, and the attributes of their directories.

        Waits for lookups in these directories, which end at their deadlines.
        """
        # In a thread, since grouping 100,000 names takes 30 ms.
        taken = await in_thread(self._grouped, self._taken())
        for parent, names in taken.items():
            while parent in self._lookups:
                await self._ended.park()
            await in_thread(self._call, parent, names)

    def _call(self, parent: Inode, names: list[bytes]) -> None:
        inode = pyfuse3.InodeT(parent)
        calls = [partial(pyfuse3.invalidate_entry, inode, name) for name in names]
        for call in (partial(pyfuse3.invalidate_inode, inode, attr_only=True), *calls):
            with self._calling:
                if self._closed:
                    return
                # ENOENT: the kernel has forgotten the name by itself.
                with contextlib.suppress(OSError):
                    call()

    def close(self) -> None:
        """Wait for a call of the kernel, and allow no further one."""
        # Bounded: a lookup that began after the last look may be in progress.
        locked = self._calling.acquire(timeout=_CLOSE_SECONDS)
        self._closed = True
        if locked:
            self._calling.release()
