"""A registry that cannot be reached is left alone for a pause that grows, and is asked again by
itself.

Rules that hold here:
- a question fails as it failed, once; within the pause the next ones fail at once with the same
  error;
- while a registry that was reached before refuses connections, as it does while it restarts,
  questions are asked again for up to half of `--timeout`; a registry that was never reached, or
  that has been away for longer, fails at once;
- any answer ends the outage, also a refusal or a failure of the registry's own (5xx): that is about
  one question (`Failures`).
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
"""After these, what was known before is used."""

_AWAY = (Unreachable, DeadlineExceeded)
_SEVERAL = (
    3  # different questions of a kind that fail in a row before all of that kind are left alone
)
_QUESTIONS = 1000  # failing ones that are remembered
_FIRST_PAUSE = 1.0
_AGAIN = 0.5  # seconds between two questions to a registry that may be restarting


class Outage:
    """Whether a registry cannot be reached.

    `longest`: the longest pause in seconds; 0: there are no pauses.

    `restart`: the seconds for which a registry that refuses connections is taken to restart.
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
        """Raise the error of the outage, within its pause."""
        if self._error is not None and trio.current_time() < self._resume_at:
            raise self._error

    def failed(self, error: OcifsError) -> None:
        """The registry was not reached: the next pause is twice as long."""
        now = trio.current_time()
        if self._error is None:
            self._since = now
        self._error = copy.copy(error)
        self._error.listed = ()  # which is about one question, and the outage about all
        if self._restarts(error):
            self._resume_at = now + min(_AGAIN, self._longest)
            return
        self._pause = min(self._longest, max(_FIRST_PAUSE, self._pause * 2))
        self._resume_at = now + self._pause

    def over(self) -> None:
        """The registry answered."""
        self._error, self._pause, self._reached = None, 0.0, True

    async def ask(
        self,
        question: Callable[[], Awaitable[T]],
        kinds: tuple[type[OcifsError], ...] = _AWAY,
        *,
        patient: bool = True,
    ) -> T:
        """What a question gives, or raises.

        `kinds` of errors make an outage. `patient`: wait while the registry restarts.
        """
        while True:
            try:
                return await self._ask(question, kinds)
            except ConnectionRefused as error:
                if not (patient and self._restarts(error)):
                    raise
            await trio.sleep(max(_AGAIN, self._resume_at - trio.current_time()))

    async def _ask(
        self, question: Callable[[], Awaitable[T]], kinds: tuple[type[OcifsError], ...]
    ) -> T:
        self.check()
        try:
            found = await question()
        except OcifsError as error:
            if isinstance(error, kinds):
                self.failed(error)
            else:
                self.over()
            raise
        self.over()
        return found

    def _restarts(self, error: OcifsError) -> bool:
        """Whether it may only be restarting, and is worth waiting for."""
        recent = trio.current_time() < self._since + self._restart
        return isinstance(error, ConnectionRefused) and self._reached and recent


class Failures:
    """Questions to which the registry answers with failures of its own (5xx).

    - A question that failed is asked again after a pause; until then it fails with the same error.
    - After _SEVERAL different ones of a kind in a row all of that kind are left alone. Other kinds
      are asked as before.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._questions: LRUCache[str, Outage] = LRUCache(_QUESTIONS)
        self._kinds: dict[str, Outage] = {}
        self._failed: dict[str, set[str]] = {}

    async def ask(self, key: str, question: Callable[[], Awaitable[T]]) -> T:
        """What a question gives, or raises. The first word of its key is its kind."""
        kind = key.partition(" ")[0]
        failed = self._failed.setdefault(kind, set())
        every = self._kinds.setdefault(kind, Outage(self._longest))
        every.check()
        own = self._questions.get(key)
        if own is not None:
            own.check()
        try:
            found = await question()
        except RegistryFailed as error:
            own = self._questions.setdefault(key, own or Outage(self._longest))
            own.failed(error)
            if len(failed) < _SEVERAL:
                failed.add(key)
            if len(failed) == _SEVERAL:
                every.failed(error)
            raise
        except OcifsError as error:
            if not isinstance(error, _AWAY):
                self._over(kind, key)
            raise
        self._over(kind, key)
        return found

    def _over(self, kind: str, key: str) -> None:
        self._questions.pop(key, None)
        self._failed[kind].clear()
        self._kinds[kind].over()


class BackoffSource:
    """A BlobSource that is not asked again at once when it could not be reached.

    `outage` may be ended by others who got an answer.
    """

    def __init__(self, source: BlobSource, outage: Outage) -> None:
        self._source = source
        self._outage = outage

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return await self._outage.ask(lambda: self._source.blob_size(repository, digest))

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:

            async def opened() -> BlobStream:
                return await stack.enter_async_context(self._source.open_blob(blob, start, stop))

            # A connection that is lost later was one, and makes no outage.
            yield await self._outage.ask(opened, (Unreachable,))

    def report_corrupt(self, digest: Digest) -> bool:
        return self._source.report_corrupt(digest)
