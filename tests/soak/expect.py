"""Which errors a fault explains, for which step, and when: the table by which the soak judges every
errno.

A step is one of three: `name` (a tag or a list is asked for), `manifest` and `content` (something
is fetched by its digest). A fault of a registry is an interval of time. An operation may fail with
an errno of the table if it overlaps the interval, or follows it before the pause after an outage
and the time-out of a fetch that had begun under it are over. At any other time no errno is allowed.

Rules that hold here:
- ENOENT is in no row: absence is what the registry reported, or an error.
- Faults that hit a request once are invisible if the request is repeated (`REPEATED`). So is any
  fault of a mirror.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.support.faultproxy import LIES, SIZES, STATUSES, WAYS

TTL, TIMEOUT, MAX_WAIT = 1.0, 6.0, 12.0  # --tag-ttl, --timeout, --max-wait
LONGEST_PAUSE = 2 * TIMEOUT  # between questions to a registry that was not reached
MOMENT = 3.0  # in which a request that is repeated succeeds once the fault is over
ASKED_PAUSE = 2.0  # seconds that the faulty answers ask for, and what is added by chance

STEPS = ("name", "manifest", "content")
_LOST = frozenset({errno.EHOSTUNREACH, errno.ETIMEDOUT})
_SLOW = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH})
_BROKEN = frozenset({errno.EIO})
_BUSY = frozenset({errno.EAGAIN, errno.ETIMEDOUT})
_NONE: frozenset[int] = frozenset()


def _by_digest(numbers: frozenset[int]) -> dict[str, frozenset[int]]:
    """The row of a fault that is applied to answers to a digest only."""
    return {"name": _NONE, "manifest": numbers, "content": numbers}


def _all(numbers: frozenset[int]) -> dict[str, frozenset[int]]:
    return dict.fromkeys(STEPS, numbers)


ALLOWED: dict[str, dict[str, frozenset[int]]] = {
    "refuse": _all(_LOST),
    "silent": _all(_SLOW),
    "stall": _all(_SLOW),
    "trickle": _all(_SLOW),
    "cut": _all(_LOST),
    "reset": _all(_LOST),
    "drip": _all(_NONE),
    "no http": _all(_LOST),
    "429 until a date": _all(_BUSY),
    "429 for a second": _all(_BUSY),
    "500": _all(_BROKEN),
    "502 of html": _all(_BROKEN),
    "503 for a second": _all(_BROKEN | {errno.ETIMEDOUT}),
    "401": _all(frozenset({errno.EACCES})),
    "short": _by_digest(_BROKEN | _LOST),
    "long": _by_digest(_BROKEN),
    "other range": _by_digest(_BROKEN),
    "whole for a part": _all(_NONE),
    "corrupt": _by_digest(_BROKEN),
}

REPEATED = ("refuse", "silent", "stall", "cut", "reset", "no http", "500", "502 of html")
"""Faults that no caller notices if only the first request for something meets them."""
ASKED = ("429 for a second", "503 for a second")
"""The same for a single caller. Other callers wait for the same pause, and meet their own fault."""
MIRRORED = (
    "refuse",
    "silent",
    "stall",
    "cut",
    "reset",
    "no http",
    "429 for a second",
    "500",
    "502 of html",
    "401",
)
"""Faults of a mirror that no caller notices."""
SLOW = ("silent", "stall", "trickle", "drip")
"""Faults under which a request may still be under way when they are over."""
FAULTS = (*WAYS, *SIZES, *LIES)

assert set(FAULTS) == set(ALLOWED) and set(STATUSES) <= set(ALLOWED)


@dataclass
class Fault:
    """A fault from `began` until `ended`, as `time.monotonic` has it."""

    kind: str
    began: float
    ended: float = float("inf")


@dataclass
class Faults:
    """The faults of one registry so far, the newest last."""

    past: list[Fault] = field(default_factory=list)

    def begin(self, kind: str, now: float) -> None:
        self.past.append(Fault(kind, now))

    def end(self, now: float) -> None:
        if self.past and self.past[-1].ended > now:
            self.past[-1].ended = now

    def felt(self, began: float, ended: float) -> list[Fault]:
        """The faults that an operation of this time may meet."""
        return [
            fault
            for fault in self.past
            if fault.began <= ended and began <= fault.ended + self._hangover(fault)
        ]

    def errnos(self, steps: Iterable[str], began: float, ended: float) -> set[int]:
        """What an operation of these steps may fail with."""
        return {
            number
            for fault in self.felt(began, ended)
            for step in steps
            for number in ALLOWED[fault.kind][step]
        }

    def _hangover(self, fault: Fault) -> float:
        """Seconds for which a fault that is over may be felt.

        Pauses double from one second on, so the last one is no longer than the outage was, and a
        second.
        """
        first = fault.began
        for other in reversed(self.past[: self.past.index(fault)]):
            if other.ended + TIMEOUT < first:
                break
            first = other.began
        outage = max(0.0, fault.ended - first)
        under_way = TIMEOUT if fault.kind in SLOW else MOMENT
        return under_way + ASKED_PAUSE + min(LONGEST_PAUSE, outage + 1)
