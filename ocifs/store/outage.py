"""A registry that cannot be reached is left alone for a pause that grows, and is asked again by itself.

Rules that hold here: what was asked fails as it failed, once; within the pause it fails at once with the same error; any answer ends
the outage, a refusal too, since somebody gave it.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from ocifs.content import Blob, BlobSource, BlobStream
from ocifs.errors import DeadlineExceeded, OcifsError, RegistryFailed, Unreachable
from ocifs.oci.digest import Digest

T = TypeVar("T")

OUTAGES = (Unreachable, DeadlineExceeded, RegistryFailed)
_FIRST_PAUSE = 1.0


class Outage:
    """Whether somebody cannot be reached. `longest`: seconds that a pause takes at the most; 0: there are no pauses."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._pause = 0.0
        self._resume_at = 0.0
        self._error: OcifsError | None = None

    def check(self) -> None:
        """Raise the error of the outage, within its pause."""
        if self._error is not None and trio.current_time() < self._resume_at:
            raise self._error

    def failed(self, error: OcifsError) -> None:
        """Nobody could be reached: the next pause is twice as long."""
        self._pause = min(self._longest, max(_FIRST_PAUSE, self._pause * 2))
        self._resume_at = trio.current_time() + self._pause
        self._error = copy.copy(error)
        self._error.listed = ()  # which is about one question, and the outage about all

    def over(self) -> None:
        """Somebody answered."""
        self._error, self._pause = None, 0.0

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """What a question gives, or raises."""
        self.check()
        try:
            found = await question()
        except OUTAGES as error:
            self.failed(error)
            raise
        except OcifsError:
            self.over()
            raise
        self.over()
        return found


class PatientSource:
    """A BlobSource that is not asked again at once when it could not be reached. `outage` may be ended by others who got an answer."""

    def __init__(self, source: BlobSource, outage: Outage) -> None:
        self._source = source
        self._outage = outage

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return await self._outage.ask(lambda: self._source.blob_size(repository, digest))

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        self._outage.check()
        opened = False
        try:
            async with self._source.open_blob(blob, start, stop) as stream:
                opened = True
                self._outage.over()
                yield stream
        except Unreachable as error:
            if not opened:  # a connection that is lost on the way was one
                self._outage.failed(error)
            raise

    def distrust(self, digest: Digest) -> bool:
        return self._source.distrust(digest)
