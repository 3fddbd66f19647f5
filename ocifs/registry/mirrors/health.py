"""The health of one endpoint: whether it responds, and how long it is skipped after a failure.

`MirroredRegistry` has one `Health` for each endpoint, and calls it around each request, from the
task of the caller. State: the last failure with the pause after it, and counters for status.json.

This is the second of the back-off mechanisms (docs/explanation/retries.md), above `http.throttle`,
which retries single requests. It skips a whole endpoint, for seconds to minutes, so that a dead
mirror costs its timeout once. The pause doubles with each further failure, and the first good
response ends it.

- A mirror is probed before its first request, and again after each pause. Concurrent callers wait
  for the first probe; during a later one they skip the mirror.
- A response is a sign of health, even if it is a 404.
- A failure of a mirror of any kind (connection, 5xx, 429) pauses it, as there are other endpoints.
- The registry itself is paused only if it cannot be reached: its 5xx and 429 concern one kind of
  request, and a connection that is lost within a body shows that it was reached. It is not probed.
- A refusal, or corrupt content, pauses nothing: it costs no time.
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

_OWN_FIRST_PAUSE = 1.0  # seconds; of the registry itself
_MAX_PAUSES = 60  # the longest pause of a mirror, as a multiple of its first one
_UNREACHABLE = (Unreachable, DeadlineExceeded)
_FAILURES = (*_UNREACHABLE, RegistryFailed, RateLimited)


class Health:
    """The health of one endpoint. `own`: it is the registry itself."""

    def __init__(self, own: bool, timing: Timing) -> None:
        self._probe_timeout = timing.mirror_timeout
        self._first_pause, self._max_pause = (
            (min(_OWN_FIRST_PAUSE, timing.outage_pause), timing.outage_pause)
            if own
            else (timing.mirror_pause, timing.mirror_pause * _MAX_PAUSES)
        )
        self._own = own
        self._is_probed = own
        # Set while the endpoint is paused: the next pause doubles `_pause`.
        self._pause = 0.0
        self._paused_until = 0.0
        self._failure: OcifsError | None = None
        # Set while a probe is under way.
        self._probe: trio.Event | None = None
        self._last_ok: bool | None = None
        self._message, self._message_at = "", 0.0
        self.requests = self.failures = self.missing = self.corrupt = self.bytes = 0

    async def wait_ready(self, check: Callable[[], Awaitable[None]]) -> None:
        """Return if the endpoint can be used, after a probe by `check` if necessary.

        Raises its last failure while it is paused.
        """
        # A loop, since the probe of another task may have failed while this task waited for it.
        while not self._is_probed or trio.current_time() < self._paused_until:
            if trio.current_time() < self._paused_until:
                assert self._failure is not None
                raise self._failure
            if self._probe is None:
                await self._run_probe(check)
            # A probe after a pause. The caller can try another endpoint meanwhile.
            elif self._failure is not None:
                raise self._failure
            else:
                await self._probe.wait()

    async def _run_probe(self, check: Callable[[], Awaitable[None]]) -> None:
        probe = self._probe = trio.Event()
        try:
            with trio.move_on_after(self._probe_timeout) as scope:
                await check()
            if scope.cancelled_caught:
                raise Unreachable(f"a mirror did not respond within {self._probe_timeout:g} s")
            self._is_probed = True
        except OcifsError as error:
            self.record_failure(error)
            raise
        finally:
            self._probe = None
            probe.set()

    @contextmanager
    def track(self, *, streaming: bool) -> Iterator[None]:
        """Record a request and its outcome.

        `streaming`: the body follows after the block, and may still fail.
        """
        self.requests += 1
        try:
            yield
        except NotFound:
            self.missing += 1
            self.record_success()
            raise
        except OcifsError as error:
            self.record_failure(error)
            raise
        if not streaming:
            self.record_success()

    def record_failure(self, error: OcifsError, *, streaming: bool = False) -> None:
        """Record a failure, and pause the endpoint if it would only delay callers.

        `streaming`: it occurred within a body.
        """
        self.failures += 1
        self._last_ok = False
        self._record_message(str(error))
        if isinstance(error, IntegrityError):
            self.corrupt += 1
        if not isinstance(error, _UNREACHABLE if self._own else _FAILURES):
            return
        if self._own and streaming:
            return
        # Retry-After can only extend the pause.
        seconds = error.retry_after if isinstance(error, RateLimited | RegistryFailed) else None
        self._pause = min(self._max_pause, max(self._first_pause, self._pause * 2))
        pause = max(self._pause, min(seconds or 0.0, self._max_pause))
        self._paused_until = trio.current_time() + pause
        self._failure = error
        self._is_probed = self._own

    def record_corrupt(self, message: str) -> None:
        """Record that content from this endpoint did not match its digest."""
        self.failures += 1
        self.corrupt += 1
        self._record_message(message)

    def record_success(self) -> None:
        """Record a good response, which ends a pause."""
        self._last_ok = True
        self._pause, self._paused_until, self._failure = 0.0, 0.0, None

    def _record_message(self, message: str) -> None:
        self._message, self._message_at = message, time.time()

    @property
    def state(self) -> str:
        """`unknown` before the first request, `well`, `failing` (paused) or `refusing`."""
        if self._failure is not None:
            return "failing"
        return {None: "unknown", True: "well", False: "refusing"}[self._last_ok]

    def facts(self) -> dict[str, object]:
        """The state and the counters, for status.json."""
        pause = max(0.0, self._paused_until - trio.current_time()) if self._failure else 0.0
        error = {"time": round(self._message_at, 3), "message": self._message}
        # Programs read status.json, so its documented keys stay, unlike the names of attributes.
        return {
            "state": self.state,
            "asked_again_in": round(pause, 1),
            "questions": self.requests,
            "failures": self.failures,
            "lacking": self.missing,
            "wrong": self.corrupt,
            "bytes_received": self.bytes,
            "error": error if self._message else None,
        }
