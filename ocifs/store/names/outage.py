"""Back-off of the store: a registry that cannot be reached is left alone for a growing pause.

Used in the event loop. `docs/explanation/retries.md` compares this with the retries of the other
layers: those below repeat single requests, and have given up when an error arrives here.

    Outage          one for the names and one for the blobs of a registry: it cannot be reached
    Failures        one for the names of a registry: it answers some requests with 5xx
    BackoffSource   a BlobSource with an Outage

- A request fails once with its own error. During the pause after it, the next ones fail at once
  with the same error.
- A registry that answered before may refuse connections while it restarts. Then requests are
  repeated for up to half of `--timeout`. A registry that was never reached, or that has been away
  for longer, fails at once.
- Any answer ends the outage, including a refusal and a 5xx: that is about one request (`Failures`).
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import trio
from cachetools import LRUCache

from ocifs.content import Blob, BlobSource, BlobStream
from ocifs.errors import (
    ConnectionRefused,
    DeadlineExceeded,
    OcifsError,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci.digest import Digest

T = TypeVar("T")

OUTAGES = (Unreachable, DeadlineExceeded, RegistryFailed)
"""After these errors, an earlier answer is used."""

_AWAY = (Unreachable, DeadlineExceeded)
_SEVERAL = 3  # different requests of a kind that fail in a row before that kind is left alone
_REQUESTS = 1000  # failing ones that are remembered
_FIRST_PAUSE = 1.0
_RESTART_PAUSE = 0.5  # seconds between two requests to a registry that may be restarting


class Outage:
    """Whether a registry cannot be reached.

    `longest` is the longest pause in seconds; with 0 there are no pauses. `restart` is the time in
    seconds in which a registry that refuses connections is assumed to restart.
    """

    def __init__(self, longest: float, restart: float = 0.0) -> None:
        self._longest = longest
        self._restart = restart
        self._reached = False
        self._pause = 0.0
        self._resume_at = 0.0
        self._since = 0.0
        self._error: OcifsError | None = None

    def check(self) -> None:
        """Raise the error of the outage during its pause."""
        if self._error is not None and trio.current_time() < self._resume_at:
            raise self._error

    def failed(self, error: OcifsError) -> None:
        """The registry was not reached. The next pause is twice as long."""
        now = trio.current_time()
        if self._error is None:
            self._since = now
        self._error = copy.copy(error)
        self._error.listed = ()  # the entries belong to one request, the outage to all
        # While it may restart, the pause stays short and does not grow.
        if self._may_restart(error):
            self._resume_at = now + min(_RESTART_PAUSE, self._longest)
            return
        self._pause = min(self._longest, max(_FIRST_PAUSE, self._pause * 2))
        self._resume_at = now + self._pause

    def over(self) -> None:
        """The registry answered."""
        self._error, self._pause, self._reached = None, 0.0, True

    def forget(self) -> None:
        """End the pause, so that the next request is sent."""
        self._error, self._pause = None, 0.0

    async def ask(
        self,
        request: Callable[[], Awaitable[T]],
        kinds: tuple[type[OcifsError], ...] = _AWAY,
        *,
        wait_for_restart: bool = True,
    ) -> T:
        """The result of a request. Errors of these `kinds` make an outage."""
        while True:
            try:
                return await self._ask(request, kinds)
            except ConnectionRefused as error:
                if not (wait_for_restart and self._may_restart(error)):
                    raise
            await trio.sleep(max(_RESTART_PAUSE, self._resume_at - trio.current_time()))

    async def _ask(
        self, request: Callable[[], Awaitable[T]], kinds: tuple[type[OcifsError], ...]
    ) -> T:
        # No lock: requests that are already running may all fail, and each prolongs the pause.
        self.check()
        try:
            answer = await request()
        except OcifsError as error:
            if isinstance(error, kinds):
                self.failed(error)
            else:
                self.over()
            raise
        self.over()
        return answer

    def _may_restart(self, error: OcifsError) -> bool:
        """Whether the registry may only be restarting, so that waiting is worthwhile."""
        recent = trio.current_time() < self._since + self._restart
        return isinstance(error, ConnectionRefused) and self._reached and recent


class Failures:
    """Requests that the registry answers with 5xx.

    - A request that failed is repeated after a pause. Until then it fails with the same error.
    - After _SEVERAL different ones of a kind in a row, the whole kind is left alone. Other kinds
      are requested as before.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._requests: LRUCache[str, Outage] = LRUCache(_REQUESTS)
        self._kinds: dict[str, Outage] = {}
        self._failed: dict[str, set[str]] = {}

    def forget(self) -> None:
        """End all pauses."""
        self._requests.clear()
        self._kinds.clear()
        self._failed.clear()

    async def ask(self, key: str, request: Callable[[], Awaitable[T]]) -> T:
        """The result of a request. The first word of its key is its kind."""
        kind = key.partition(" ")[0]
        failed = self._failed.setdefault(kind, set())
        every = self._kinds.setdefault(kind, Outage(self._longest))
        every.check()
        own = self._requests.get(key)
        if own is not None:
            own.check()
        try:
            answer = await request()
        except RegistryFailed as error:
            own = self._requests.setdefault(key, own or Outage(self._longest))
            own.failed(error)
            # The set stays small, since further keys would change nothing.
            if len(failed) < _SEVERAL:
                failed.add(key)
            if len(failed) == _SEVERAL:
                every.failed(error)
            raise
        except OcifsError as error:
            # Any answer, also a refusal, shows that the registry handles this kind of request.
            if not isinstance(error, _AWAY):
                self._over(kind, key)
            raise
        self._over(kind, key)
        return answer

    def _over(self, kind: str, key: str) -> None:
        self._requests.pop(key, None)
        # Both are absent if the pauses were ended while the request was running.
        self._failed.setdefault(kind, set()).clear()
        if kind in self._kinds:
            self._kinds[kind].over()


class BackoffSource:
    """A BlobSource that is left alone during an outage. Answers to other requests may end it."""

    def __init__(self, source: BlobSource, outage: Outage) -> None:
        self._source = source
        self._outage = outage

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return await self._outage.ask(lambda: self._source.blob_size(repository, digest))

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:

            async def open_stream() -> BlobStream:
                return await stack.enter_async_context(self._source.open_blob(blob, start, stop))

            # A connection that is lost later had been made, so it is not an outage.
            yield await self._outage.ask(open_stream, (Unreachable,))

    def report_corrupt(self, digest: Digest) -> bool:
        return self._source.report_corrupt(digest)

    def is_strained(self) -> bool:
        return self._source.is_strained()
