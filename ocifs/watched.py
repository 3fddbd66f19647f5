"""A registry, watched on its way to the caches: what is being fetched, how fast, what went wrong
last.

Rules that hold here: answers and errors pass as they are; bounded, whatever is asked; looking at it
asks nobody.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ocifs.content import Blob, BlobSource, BlobStream, Catalog, RawManifest
from ocifs.errors import CatalogUnavailable, DeadlineExceeded, NotFound, OcifsError, Unreachable
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest

T = TypeVar("T")

log = logging.getLogger("ocifs.registry")

RATE_SECONDS = 10
_ERRORS_KEPT = 5
_SHOWN = 32


@dataclass(eq=False, slots=True)
class Transfer:
    """Bytes [start, stop) of a blob on their way; `received` of them are here."""

    blob: Blob
    start: int
    stop: int
    began: float
    received: int = 0


@dataclass(slots=True)
class Traffic:
    """What one registry was asked, and what came."""

    host: str
    questions: int = 0
    failures: int = 0
    received: int = 0
    under_way: list[Transfer] = field(default_factory=list)
    errors: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_ERRORS_KEPT))
    reachable: bool | None = None
    _away: bool = False  # that it cannot be reached was said
    _seconds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RATE_SECONDS + 1))

    @contextmanager
    def question(self) -> Iterator[None]:
        """Count a question, and remember how it ended. That there is no such thing is an answer."""
        self.questions += 1
        try:
            yield
        except NotFound:
            self._answered()
            raise
        except OcifsError as error:
            self.failures += 1
            self.errors.append((time.time(), str(error)))
            if isinstance(error, CatalogUnavailable) and not isinstance(
                error.__cause__, Unreachable | DeadlineExceeded
            ):
                self._answered()
                raise
            self.reachable = False
            if isinstance(error, Unreachable | DeadlineExceeded) and not self._away:
                self._away = True
                log.info("%s cannot be reached: %s; what is known of it is shown", self.host, error)
            raise
        self._answered()

    def _answered(self) -> None:
        self.reachable = True
        if self._away:
            self._away = False
            log.info("%s is reachable again", self.host)

    def came(self, transfer: Transfer, count: int) -> None:
        """Count bytes of a blob."""
        transfer.received += count
        self.received += count
        second = int(trio.current_time())
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def rate(self) -> float:
        """Bytes of blobs a second, over the last whole seconds."""
        now = int(trio.current_time())
        return (
            sum(count for second, count in self._seconds if now - RATE_SECONDS <= second < now)
            / RATE_SECONDS
        )

    def facts(self) -> dict[str, object]:
        """For status.json."""
        now = trio.current_time()
        return {
            "host": self.host,
            "reachable": self.reachable,
            "questions": self.questions,
            "failures": self.failures,
            "bytes_received": self.received,
            "bytes_per_second": round(self.rate()),
            "fetches": len(self.under_way),
            "fetching": [
                {
                    "repository": each.blob.repository,
                    "digest": str(each.blob.digest),
                    "size": each.blob.size,
                    "start": each.start,
                    "stop": each.stop,
                    "received": each.received,
                    "seconds": round(now - each.began, 1),
                }
                for each in self.under_way[:_SHOWN]
            ],
            "errors": [
                {"time": round(when, 3), "message": message} for when, message in self.errors
            ],
        }


class WatchedCatalog:
    """A Catalog whose questions are counted."""

    def __init__(self, catalog: Catalog, traffic: Traffic) -> None:
        self._catalog = catalog
        self._traffic = traffic

    async def _watch(self, question: Awaitable[T]) -> T:
        with self._traffic.question():
            return await question

    async def repositories(self) -> tuple[str, ...]:
        return await self._watch(self._catalog.repositories())

    async def brief_list(self) -> tuple[str, ...] | None:
        return await self._watch(self._catalog.brief_list())

    async def tags(self, repository: str) -> tuple[str, ...]:
        return await self._watch(self._catalog.tags(repository))

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        return await self._watch(self._catalog.resolve(repository, tag))

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self._watch(self._catalog.tagged(repository, tag))

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        return await self._watch(self._catalog.manifest(repository, digest))

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        return await self._watch(self._catalog.referrers(repository, digest))


class _WatchedStream:
    """A stream whose bytes are counted."""

    def __init__(self, stream: BlobStream, transfer: Transfer, traffic: Traffic) -> None:
        self.start, self.total = stream.start, stream.total
        self._stream, self._transfer, self._traffic = stream, transfer, traffic

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._traffic.came(self._transfer, len(piece))
            yield piece


class WatchedSource:
    """A BlobSource whose transfers can be seen."""

    def __init__(self, source: BlobSource, traffic: Traffic) -> None:
        self._source = source
        self._traffic = traffic

    async def blob_size(self, repository: str, digest: Digest) -> int:
        with self._traffic.question():
            return await self._source.blob_size(repository, digest)

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        transfer = Transfer(blob, start, stop, trio.current_time())
        self._traffic.under_way.append(transfer)
        try:
            with self._traffic.question():
                async with self._source.open_blob(blob, start, stop) as stream:
                    yield _WatchedStream(stream, transfer, self._traffic)
        finally:
            self._traffic.under_way.remove(transfer)

    def report_corrupt(self, digest: Digest) -> bool:
        return self._source.report_corrupt(digest)
