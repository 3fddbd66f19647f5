"""Keeps a cache within its bounds while a process uses it.

`run` is a task of the event loop. It looks through the cache when enough bytes were written, and
otherwise every half minute if anything was. A worker thread looks and evicts.

`grew` and `make_room` are called from any thread that writes to the cache.

- No reader waits for an eviction, unless its own write found the disk full.
- An eviction in progress does not delay the end of the process.
- Files that this process keeps open only for a next read are closed before the cache is reported to
  be over its bounds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import trio

from ocifs.concurrency import guarded, in_thread
from ocifs.settings import MIB, CacheSettings
from ocifs.store.disk import CacheDirectory
from ocifs.store.upkeep.eviction import AT_LEAST, Bounds, Report, bounds, evict, free_space

log = logging.getLogger("ocifs.store")

EVERY = 30.0  # seconds between two looks
IDLE = 60.0  # seconds after which an unused file is closed
_STEP = 64 * MIB  # the most bytes that are written between two looks


class IdleCloser(Protocol):
    """Has files of the cache open for the next read."""

    def close_idle(self, idle: float) -> None:
        """Close the files that no program has open and that were not read for `idle` seconds.

        For the others, update the time of use on disk.
        """
        ...


class Housekeeper:
    """The Space of a Disk (disk.py). `closers` may grow while the housekeeper runs."""

    def __init__(
        self, directory: CacheDirectory, settings: CacheSettings, closers: Sequence[IdleCloser]
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._closers = closers
        self._due = trio.Event()
        self._grown = 0
        self._step = _STEP
        self._token: trio.lowlevel.TrioToken | None = None
        self.report = Report()
        self.limits = Bounds(0, 0)

    async def run(self) -> None:
        """Look through the cache now, and again for as long as the process uses it."""
        self._token = trio.lowlevel.current_trio_token()
        await guarded("looking through the cache", self._look)
        while True:
            with trio.move_on_after(EVERY):
                await self._due.wait()
            # Replaced before the look, so that growth during the look starts another one.
            self._due = trio.Event()
            await guarded("looking through the cache", self._turn)

    def facts(self) -> dict[str, object]:
        """The fields of status.json, as of the last look."""
        return {"size": self.report.size, "limit": self.limits.size, "free_space": self.limits.free}

    def grew(self, count: int) -> None:
        """Bytes were written. Called from any thread."""
        # Two threads may lose a count between them; the next look makes up for it.
        self._grown += count
        # Not only at the moment when the step is passed: the first look, which determines the step,
        # may still be running.
        if self._grown >= self._step and self._token is not None:
            self._token.run_sync_soon(self._wake, idempotent=True)

    def make_room(self) -> bool:
        """Evict, since a write found the disk full. Called from a worker thread."""
        # Before `run` has begun, there is no event loop that could close idle files.
        if self._token is None:
            return False
        # Open files are locked against eviction, so idle ones are closed first.
        try:
            trio.from_thread.run_sync(self._close_idle, 0, trio_token=self._token)
        except (RuntimeError, trio.Cancelled, trio.RunFinishedError):
            return False
        try:
            report = self._evict_now(AT_LEAST)
        except OSError:
            return False
        # None: another process is evicting, so there may be room now.
        return report is None or bool(report.evicted)

    async def _turn(self) -> None:
        self._close_idle(IDLE)
        if self._grown or self.report.over or await in_thread(self._is_full):
            await self._look()

    def _is_full(self) -> bool:
        """Whether other programs use the space that should stay free, and there may be something to
        evict.
        """
        try:
            return free_space(self._directory) < self.limits.free and self.report.size > 0
        except OSError:
            return False  # the directory was removed; files that are open can still be read

    async def _look(self) -> None:
        await self._evict()
        if self.report.over:
            self._close_idle(0)
            await self._evict()

    async def _evict(self) -> None:
        # Before the look: bytes that are written during it count toward the next one.
        self._grown = 0
        try:
            report = await in_thread(self._evict_now, abandon_on_cancel=True)
        except OSError as error:
            log.warning("cannot look through the cache: %s", error.strerror)
            return
        if report is not None:
            self.report = report

    def _evict_now(self, least: int = 0) -> Report | None:
        self.limits = bounds(self._directory, self._settings)
        # A small cache is looked through more often, so that it exceeds its limit by about 5 %.
        self._step = max(MIB, min(_STEP, self.limits.size // 20))
        return evict(self._directory, self.limits, least=least)

    def _close_idle(self, idle: float) -> None:
        for closer in self._closers:
            closer.close_idle(idle)

    def _wake(self) -> None:
        self._due.set()
