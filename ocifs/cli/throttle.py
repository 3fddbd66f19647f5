"""How fast a command may ask for many manifests, one by one.

Rules that hold here: a few questions at a time, in the order in which they come; a registry that
says "too often" is left alone for as long as it asks, by all of them, and from then on asked one
question at a time; whoever looks on is told; what would have to wait longer than `max_wait`, or was
refused too often in a row, ends with the registry's error.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ocifs.concurrency import patience
from ocifs.errors import RateLimited
from ocifs.settings import Timing

T = TypeVar("T")

# Enough to hide the way to the registry and back, few enough for one that counts.
AT_A_TIME = 4
# What is left of a limit (RateLimit-Remaining) when it is time to be careful.
FEW_LEFT = 20
_FIRST_PAUSE = 5.0  # of a registry that does not say for how long; twice as much each time
_REFUSALS = 6  # in a row


@dataclass
class Pace:
    """The pace of one command.

    `say` tells a person; `facts`: what is known of the registry, as in status.json.
    """

    timing: Timing
    say: Callable[[str], None]
    facts: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    _limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(AT_A_TIME))
    _resume_at: float = 0.0
    _refusals: int = 0

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, asked for with patience when it is its turn.

        Raises RateLimited when waiting does not help.
        """
        while True:
            async with self._limiter:
                if trio.current_time() < self._resume_at:
                    await trio.sleep_until(self._resume_at)
                    continue
                try:
                    with patience(self.timing.timeout, self.timing.max_wait):
                        found = await work()
                except RateLimited as error:
                    self._slow_down(error)
                    continue
                self._refusals = 0
                self._look_ahead()
                return found

    def _slow_down(self, error: RateLimited) -> None:
        if trio.current_time() < self._resume_at:
            return  # it was asked before it said so to another
        self._refusals += 1
        asked = error.retry_after
        pause = _FIRST_PAUSE * 2 ** (self._refusals - 1) if asked is None else max(asked, 1.0)
        if pause > self.timing.max_wait or self._refusals > _REFUSALS:
            raise error
        self._resume_at = trio.current_time() + pause
        self._limiter.total_tokens = 1
        self.say(
            f"the registry asks for patience: going on in {pause:.0f} s, one question at a time"
        )

    def _look_ahead(self) -> None:
        left = self._left() if self._limiter.total_tokens > 1 else None
        if left is not None and left <= FEW_LEFT:
            self._limiter.total_tokens = 1
            self.say(
                f"the registry says that {left} more questions are allowed: asking one at a time"
            )

    def _left(self) -> int | None:
        """What the last answer that spoke of limits said is left (RateLimit-Remaining), or None."""
        for tell in self.facts.values():
            known = tell()
            limits = known.get("rate_limits") if isinstance(known, dict) else None
            for name, value in limits.items() if isinstance(limits, dict) else ():
                number = re.match(r"\s*(\d{1,9})", str(value))
                if name.endswith("remaining") and number:
                    return int(number[1])
        return None
