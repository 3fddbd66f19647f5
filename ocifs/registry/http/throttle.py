"""Retries within one registry: how often, after which pause, and until when.

`Connection` sends each request through `Throttle.call`, from the task of the caller. State, one
instance a registry: until when a kind of request must not be sent (Retry-After), and the warnings
and rate limits that the registry has reported.

This is the innermost of the back-off mechanisms (docs/explanation/retries.md): it repeats one
request to one registry within seconds. `oci.distribution.retry` decides whether, and after which
pause. The longer pauses, of a mirror or of a registry that cannot be reached, are in
`mirrors.health` and in the store.

- A registry that sends Retry-After gets no request of the same kind before that time, from any
  task.
- No pause is longer than the caller's remaining time. If it would be, the error is raised at once.
- With one attempt there is no waiting at all: the caller has other endpoints to try.
- After a refusal, and while few requests are left, callers are asked for one transfer at a time.
- A warning is logged once and shown in status.json (distribution-spec "Warnings").
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio
from cachetools import LRUCache

from ocifs.errors import OcifsError, RateLimited, RegistryFailed
from ocifs.oci.distribution.responses import rate_limits, remaining_requests, warnings
from ocifs.oci.distribution.retry import retry_delay

T = TypeVar("T")

log = logging.getLogger("ocifs.registry")

_WARNINGS = 16  # shown of one registry
LONGEST_HOLD = 300.0  # seconds: the longest Retry-After that is respected
FEW_LEFT = 20  # remaining requests (RateLimit-Remaining)
STRAINED = 60.0  # seconds after a refusal in which transfers are not divided


class Throttle:
    """Retries the requests to one registry.

    `attempts`: how often one request is sent. `max_wait`: seconds that a caller waits for a
    response, with all retries.
    """

    def __init__(self, host: str, attempts: int, max_wait: float) -> None:
        self._host = host
        self._attempts = attempts
        self._max_wait = max_wait
        self._warnings: LRUCache[str, float] = LRUCache(_WARNINGS)
        self._limits: dict[str, str] = {}
        self._limits_at = 0.0
        # By kind of request, of which there are a handful: until when it is held back, and why.
        self._holds: dict[str, tuple[float, OcifsError]] = {}
        self._strained_until = 0.0
        self._few_left = False

    def record_headers(self, headers: Mapping[str, str]) -> None:
        """Record the warnings and the rate limits in the headers of a response."""
        for text in warnings(headers):
            if text not in self._warnings:
                log.warning("%s warns: %s", self._host, text)
            # Times in status.json are of the wall clock. Pauses use the clock of trio, which never
            # jumps.
            self._warnings[text] = time.time()
        limits = rate_limits(headers)
        if limits:
            self._limits, self._limits_at = limits, time.time()
            remaining = remaining_requests(limits)
            self._few_left = remaining is not None and remaining <= FEW_LEFT

    def is_strained(self) -> bool:
        """Whether the registry has refused requests lately, or allows only a few more."""
        return self._few_left or trio.current_time() < self._strained_until

    async def call(self, kind: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, which is retried after failures that may pass.

        Raises the last error if no retry fits into the caller's time.
        """
        end, attempt = trio.current_time() + self._max_wait, 1
        while True:
            await self._wait_for_hold(kind, end - trio.current_time())
            try:
                return await work()
            except OcifsError as error:
                remaining = end - trio.current_time()
                jitter = random.random()  # noqa: S311 (spreads the load)
                delay = retry_delay(attempt, error, self._attempts, jitter, remaining)
                # Also after the last attempt, for the requests of other tasks.
                self._record_hold(kind, error)
                if delay is None:
                    raise
            attempt += 1
            await trio.sleep(delay)

    def _record_hold(self, kind: str, error: OcifsError) -> None:
        seconds = error.retry_after if isinstance(error, RateLimited | RegistryFailed) else None
        is_busy = isinstance(error, RegistryFailed) and error.status == 503
        if isinstance(error, RateLimited) or is_busy or seconds is not None:
            self._strained_until = trio.current_time() + max(STRAINED, seconds or 0.0)
        if seconds:
            self._holds[kind] = (trio.current_time() + min(seconds, LONGEST_HOLD), error)

    async def _wait_for_hold(self, kind: str, remaining: float) -> None:
        until, error = self._holds.get(kind, (0.0, None))
        wait = until - trio.current_time()
        if error is None or wait <= 0:
            self._holds.pop(kind, None)
            return
        # A single attempt means that there are other endpoints to try.
        if wait > remaining or self._attempts == 1:
            raise error
        await trio.sleep(wait)

    def facts(self) -> dict[str, object]:
        """The rate limits and warnings, for status.json."""
        limits: dict[str, object] = (
            {**self._limits, "time": round(self._limits_at, 3)} if self._limits else {}
        )
        shown = sorted(self._warnings.items(), key=lambda warning: warning[1])
        return {
            "rate_limits": limits,
            "warnings": [{"time": round(at, 3), "message": text} for text, at in shown],
        }
