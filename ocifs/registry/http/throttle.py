"""What a registry asks of its clients: patience (Retry-After), limits (RateLimit headers) and
warnings, kept for people to see.

Rules that hold here: a registry that asked for patience is not asked the same kind of question
before the time is over, by whomever; no pause is longer than whoever waits would wait; a warning is
logged once and shown, and nothing is done about it (distribution-spec "Warnings").
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ocifs.errors import OcifsError, RateLimited, RegistryFailed
from ocifs.oci.distribution.responses import rate_limits, warnings
from ocifs.oci.distribution.retry import retry_delay

T = TypeVar("T")

log = logging.getLogger("ocifs.registry")

_WARNINGS = 16  # kept of one registry; the oldest are forgotten
LONGEST_HOLD = 300.0  # seconds for which a registry is believed that it wants to be left alone


@dataclass(slots=True)
class Throttle:
    """How one registry is treated.

    `attempts`: of one question. `patience`: seconds that whoever asks waits for an answer.
    """

    host: str
    attempts: int
    patience: float
    _warnings: dict[str, float] = field(default_factory=dict)
    _limits: dict[str, str] = field(default_factory=dict)
    _limits_at: float = 0.0
    _holds: dict[str, tuple[float, OcifsError]] = field(default_factory=dict)

    def heard(self, headers: Mapping[str, str]) -> None:
        """Take in what an answer says besides what was asked for."""
        for text in warnings(headers):
            if text not in self._warnings:
                log.warning("%s warns: %s", self.host, text)
            self._warnings.pop(text, None)
            self._warnings[text] = time.time()
            while len(self._warnings) > _WARNINGS:
                del self._warnings[next(iter(self._warnings))]
        limits = rate_limits(headers)
        if limits:
            self._limits, self._limits_at = limits, time.time()

    async def call(self, kind: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, tried again where that may help, within the patience.

        Raises RateLimited at once where it would not do.
        """
        began, attempt = trio.current_time(), 1
        while True:
            left = began + self.patience - trio.current_time()
            await self._hold_back(kind, left)
            try:
                return await work()
            except OcifsError as error:
                left = began + self.patience - trio.current_time()
                pause = retry_delay(attempt, error, self.attempts, random.random(), left)  # noqa: S311 (spreads load)
                self._note(kind, error)
                if pause is None:
                    raise
            attempt += 1
            await trio.sleep(pause)

    def _note(self, kind: str, error: OcifsError) -> None:
        asked = error.retry_after if isinstance(error, RateLimited | RegistryFailed) else None
        if asked:
            self._holds[kind] = (trio.current_time() + min(asked, LONGEST_HOLD), error)

    async def _hold_back(self, kind: str, left: float) -> None:
        until, error = self._holds.get(kind, (0.0, None))
        wait = until - trio.current_time()
        if error is None or wait <= 0:
            self._holds.pop(kind, None)
            return
        if (
            wait > left or self.attempts == 1
        ):  # who is asked once only is one of several who may be asked
            raise error
        await trio.sleep(wait)

    def facts(self) -> dict[str, object]:
        """For status.json."""
        limits: dict[str, object] = (
            {**self._limits, "time": round(self._limits_at, 3)} if self._limits else {}
        )
        warned = [
            {"time": round(when, 3), "message": text} for text, when in self._warnings.items()
        ]
        return {"rate_limits": limits, "warnings": warned}
