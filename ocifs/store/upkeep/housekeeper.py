"""Keeps a cache within its bounds while a process uses it.

Rules that hold here: looking and evicting happen in a worker thread, which keeps nobody from
ending; nobody waits for an eviction but who met a full disk; what this process only keeps open for
a next read is let go of before anything is said to be in use.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import trio

from ocifs.concurrency import guarded, in_thread
from ocifs.settings import MIB, CacheSettings
from ocifs.store.disk import Disk
from ocifs.store.upkeep.eviction import AT_LEAST, Bounds, Report, bounds, evict, free_space

log = logging.getLogger("ocifs.store")

EVERY = 30.0  # seconds between two looks
IDLE = 60.0  # seconds after which what nobody reads is closed
_STEP = 64 * MIB  # bytes that come in between two looks, at the most


class IdleCloser(Protocol):
    """Whoever keeps files of the cache open for the next read."""

    def close_idle(self, idle: float) -> None:
        """Close what nobody has open or has read for `idle` seconds; note on disk that the rest is
        used.
        """
        ...


class Housekeeper:
    """`run` belongs in a nursery of the process that uses the cache."""

    def __init__(self, disk: Disk, settings: CacheSettings, closers: Sequence[IdleCloser]) -> None:
        self._disk = disk
        self._settings = settings
        self._closers = closers
        self._due = trio.Event()
        self._grown = 0
        self._step = _STEP
        self._token: trio.lowlevel.TrioToken | None = None
        self.report = Report()
        self.limits = Bounds(0, 0)

    async def run(self) -> None:
        """Look now, then when enough has come in, and every half minute where anything has, or the
        disk is getting full.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._disk.on_growth = self._grew
        self._disk.make_room = self._make_room
        await guarded("looking through the cache", self._look)
        while True:
            with trio.move_on_after(EVERY):
                await self._due.wait()
            self._due = trio.Event()
            await guarded("looking through the cache", self._turn)

    async def _turn(self) -> None:
        self._close_idle(IDLE)
        if self._grown or self.report.over or await in_thread(self._is_full):
            await self._look()

    def facts(self) -> dict[str, object]:
        """For status.json: bytes at the last look."""
        return {"size": self.report.size, "limit": self.limits.size, "free_space": self.limits.free}

    def _is_full(self) -> bool:
        """Whether others have taken the space that is to stay free.

        What there is to evict may be gone already.
        """
        try:
            return free_space(self._disk) < self.limits.free and self.report.size > 0
        except OSError:
            return False  # somebody took the whole directory away; what is open goes on

    async def _look(self) -> None:
        await self._evict()
        if self.report.over:
            self._close_idle(0)
            await self._evict()

    async def _evict(self) -> None:
        self._grown = 0
        try:
            report = await in_thread(self._evict_now, abandon_on_cancel=True)
        except OSError as error:
            log.warning("the cache cannot be looked through: %s", error.strerror)
            return
        if report is not None:
            self.report = report

    def _evict_now(self, least: int = 0) -> Report | None:
        self.limits = bounds(self._disk, self._settings)
        self._step = max(MIB, min(_STEP, self.limits.size // 20))
        return evict(self._disk, self.limits, least=least)

    def _close_idle(self, idle: float) -> None:
        for each in self._closers:
            each.close_idle(idle)

    def _grew(self, count: int) -> None:
        """Bytes were written, in whichever thread.

        A count that two threads lose between them is made good by the next look.
        """
        self._grown += count
        # Not only as the step is passed: the first look, which finds out how long a step is, may
        # still be under way.
        if self._grown >= self._step and self._token is not None:
            self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._due.set()

    def _make_room(self) -> bool:
        """A write met a full disk, in a worker thread."""
        try:
            trio.from_thread.run_sync(self._close_idle, 0, trio_token=self._token)
        except (RuntimeError, trio.Cancelled, trio.RunFinishedError):
            return False
        try:
            report = self._evict_now(AT_LEAST)
        except OSError:
            return False
        return report is None or bool(report.evicted)
