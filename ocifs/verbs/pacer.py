"""The pace at which a verb asks a registry for many manifests, one by one.

A Pacer belongs to one run of a verb, and is used by its tasks in one event loop.

- At most AT_A_TIME requests run at a time, in the order in which they come.
- After a 429 ("too many requests") all tasks pause for as long as the registry asks, and from then
  on one request runs at a time. The caller is notified.
- The same happens, without a pause, when few requests are left (RateLimit-Remaining).
- A pause longer than `max_wait`, or too many refusals in a row, raise the registry's error.

This is the outermost back-off: a single request has been retried by the registry room before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ocifs.concurrency import deadline
from ocifs.errors import RateLimited
from ocifs.oci.distribution.responses import remaining_requests
from ocifs.settings import Timing

T = TypeVar("T")

# Enough to hide the round trip to the registry, few enough for a registry that counts requests.
AT_A_TIME = 4
# Remaining requests (RateLimit-Remaining) at which they are made one at a time.
FEW_LEFT = 20
# The pause after a refusal without Retry-After, doubled with each further refusal.
_FIRST_PAUSE = 5.0
# Refusals in a row after which the verb fails.
_MAX_REFUSALS = 6


def _ignore(text: str) -> None:
    """Notify nothing."""


@dataclass
class Pacer:
    """Limits the requests of one verb.

    `notify` is called with a message for the user; `status` are the sources of status.json.
    """

    timing: Timing
    notify: Callable[[str], None] = _ignore
    status: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    _limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(AT_A_TIME))
    _resume_at: float = 0.0
    _refusals: int = 0

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` with a deadline when its turn has come, and return its result.

        Raises RateLimited when waiting does not help.
        """
        while True:
            async with self._limiter:
                # Another request may have been refused while this one waited for its turn.
                if trio.current_time() < self._resume_at:
                    await trio.sleep_until(self._resume_at)
                    continue
                try:
                    with deadline(self.timing.timeout, self.timing.max_wait):
                        result = await work()
                except RateLimited as error:
                    self._slow_down(error)
                    continue
                self._refusals = 0
                self._heed_remaining()
                return result

    def _slow_down(self, error: RateLimited) -> None:
        if trio.current_time() < self._resume_at:
            # Another request was refused first, and this one was sent before that.
            return
        self._refusals += 1
        doubled = _FIRST_PAUSE * 2 ** (self._refusals - 1)
        # With a Retry-After of 0, all attempts would be used up at once.
        pause = doubled if error.retry_after is None else max(error.retry_after, 1.0)
        if pause > self.timing.max_wait or self._refusals > _MAX_REFUSALS:
            raise error
        self._resume_at = trio.current_time() + pause
        self._limiter.total_tokens = 1
        self.notify(
            f"rate limited by the registry: waiting {pause:.0f} s, then one request at a time"
        )

    def _heed_remaining(self) -> None:
        remaining = self._remaining() if self._limiter.total_tokens > 1 else None
        if remaining is not None and remaining <= FEW_LEFT:
            self._limiter.total_tokens = 1
            self.notify(
                f"{remaining} requests left in the registry's rate limit: one request at a time"
            )

    def _remaining(self) -> int | None:
        """The requests that are left according to the last response with a limit, or None."""
        for read in self.status.values():
            values = read()
            limits = values.get("rate_limits") if isinstance(values, dict) else None
            remaining = remaining_requests(limits) if isinstance(limits, dict) else None
            if remaining is not None:
                return remaining
        return None
