"""How a place that is asked does: whether it is there, how long it is left alone after a failure,
what it served.

Rules that hold here: whether a mirror is there is found out once, whoever waits for it; while one
that failed is looked at again, nobody waits; an answer, also "no such thing", is health; the first
good answer ends the pauses; a failure of the registry itself (5xx) does not keep other questions
from it, while a mirror's does, as there are others to ask; nor does a connection to it that is
lost in the middle of an answer, since that one was reached.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from ocifs.errors import (
    DeadlineExceeded,
    IntegrityError,
    NotFound,
    OcifsError,
    RateLimited,
    RegistryFailed,
    Unreachable,
)
from ocifs.settings import Timing

_FIRST_OWN = 1.0  # the first pause of a registry itself
_LONGEST = 60  # of mirrors, in first pauses
_TROUBLES = (Unreachable, DeadlineExceeded, RegistryFailed, RateLimited)
_OWN_TROUBLES = (
    Unreachable,
    DeadlineExceeded,
)  # of the registry itself: its 5xx and 429 are about one kind of question


class Health:
    """Of one site. `own`: it is the registry itself, which need not show first that it is there."""

    def __init__(self, own: bool, timing: Timing) -> None:
        self._wait = timing.mirror_timeout
        self._first, self._longest = (
            (min(_FIRST_OWN, timing.outage_pause), timing.outage_pause)
            if own
            else (timing.mirror_pause, timing.mirror_pause * _LONGEST)
        )
        self._known = self._own = own
        self._pause = 0.0
        self._until = 0.0
        self._error: OcifsError | None = None
        self._looking: trio.Event | None = None
        self._when = 0.0
        self._message = ""
        self._last: bool | None = None
        self.questions = self.failures = self.lacking = self.lies = self.bytes = 0

    async def ready(self, check: Callable[[], Awaitable[None]]) -> None:
        """Return when it may be asked.

        Raises what keeps it from that: its last failure, while it is left alone.
        """
        while not self._known or trio.current_time() < self._until:
            if trio.current_time() < self._until:
                assert self._error is not None
                raise self._error
            if self._looking is None:
                await self._look(check)
            elif self._error is not None:
                raise self._error
            else:
                await self._looking.wait()

    async def _look(self, check: Callable[[], Awaitable[None]]) -> None:
        looking = self._looking = trio.Event()
        try:
            with trio.move_on_after(self._wait) as scope:
                await check()
            if scope.cancelled_caught:
                raise Unreachable(f"a mirror did not answer within {self._wait:g} s")
            self._known = True
        except OcifsError as error:
            self.failed(error)
            raise
        finally:
            self._looking = None
            looking.set()

    @contextmanager
    def question(self, begun: bool) -> Iterator[None]:
        """Count a question, and what came of it; `begun`: the answer has begun when the block ends,
        and may still fail.
        """
        self.questions += 1
        try:
            yield
        except NotFound:
            self.lacking += 1
            self.well()
            raise
        except OcifsError as error:
            self.failed(error)
            raise
        if not begun:
            self.well()

    def failed(self, error: OcifsError, *, answering: bool = False) -> None:
        """It failed; `answering`: in the middle of an answer.

        It is left alone for a while where it might only keep others waiting; a refusal or a wrong
        answer comes at once.
        """
        self.failures += 1
        self._last = False
        self._note(str(error))
        if isinstance(error, IntegrityError):
            self.lies += 1
        if not isinstance(error, _OWN_TROUBLES if self._own else _TROUBLES):
            return
        if self._own and answering:
            return
        asked = error.retry_after if isinstance(error, RateLimited | RegistryFailed) else None
        self._pause = min(self._longest, max(self._first, self._pause * 2))
        self._until = trio.current_time() + max(self._pause, min(asked or 0.0, self._longest))
        self._error = error
        self._known = self._own

    def lied(self, message: str) -> None:
        """What it served was found to be wrong."""
        self.failures += 1
        self.lies += 1
        self._note(message)

    def well(self) -> None:
        """It has answered."""
        self._last = True
        self._pause, self._until, self._error = 0.0, 0.0, None

    def _note(self, message: str) -> None:
        self._when, self._message = time.time(), message

    @property
    def state(self) -> str:
        """One word: `unknown` before the first question, `well`, `failing`, or `refusing` what it
        is asked for.
        """
        if self._error is not None:
            return "failing"
        return {None: "unknown", True: "well", False: "refusing"}[self._last]

    def facts(self) -> dict[str, object]:
        """For status.json."""
        left = max(0.0, self._until - trio.current_time()) if self._error is not None else 0.0
        return {
            "state": self.state,
            "asked_again_in": round(left, 1),
            "questions": self.questions,
            "failures": self.failures,
            "lacking": self.lacking,
            "wrong": self.lies,
            "bytes_received": self.bytes,
            "error": {"time": round(self._when, 3), "message": self._message}
            if self._message
            else None,
        }
