"""Wrappers around a registry that count its requests and transfers, for status.json and metrics.

They are between the registry and the caches, and run in the event loop. `Traffic` holds the counts
of one registry.

- Answers and errors pass unchanged.
- The state is bounded, for any number of requests.
- Reading the counts sends no request.
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
_ERRORS = 5
_SHOWN = 32


@dataclass(eq=False, slots=True)
class Transfer:
    """A transfer of bytes [start, stop) of a blob, of which `received` have arrived."""

    blob: Blob
    start: int
    stop: int
    began: float
    received: int = 0


@dataclass(slots=True)
class Traffic:
    """The requests to one registry, their outcome, and the transfers in progress.

    `reachable` is the outcome of the last request, or None before the first.
    """

    host: str
    questions: int = 0
    failures: int = 0
    received: int = 0
    in_progress: list[Transfer] = field(default_factory=list)
    errors: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_ERRORS))
    reachable: bool | None = None
    _away: bool = False  # an outage was logged, and its end was not
    # One more than the average covers: the current second, which is incomplete.
    _seconds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RATE_SECONDS + 1))

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request, and record its outcome. NotFound counts as an answer."""
        self.questions += 1
        try:
            yield
        except NotFound:
            self._answered()
            raise
        except OcifsError as error:
            self.failures += 1
            self.errors.append((time.time(), str(error)))
            # A registry that refuses to list its repositories is reachable.
            if isinstance(error, CatalogUnavailable) and not isinstance(
                error.__cause__, Unreachable | DeadlineExceeded
            ):
                self._answered()
                raise
            self.reachable = False
            if isinstance(error, Unreachable | DeadlineExceeded) and not self._away:
                self._away = True
                log.info("%s cannot be reached: %s; using cached data", self.host, error)
            raise
        self._answered()

    def _answered(self) -> None:
        self.reachable = True
        if self._away:
            self._away = False
            log.info("%s is reachable again", self.host)

    def add_received(self, transfer: Transfer, count: int) -> None:
        """Count bytes of a blob that arrived."""
        transfer.received += count
        self.received += count
        second = int(trio.current_time())
        # One number for each second bounds the memory for any number of pieces.
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def rate(self) -> float:
        """Bytes of blobs per second, averaged over the last RATE_SECONDS seconds."""
        now = int(trio.current_time())
        return (
            sum(count for second, count in self._seconds if now - RATE_SECONDS <= second < now)
            / RATE_SECONDS
        )

    def facts(self) -> dict[str, object]:
        """The fields of status.json."""
        now = trio.current_time()
        return {
            "host": self.host,
            "reachable": self.reachable,
            "questions": self.questions,
            "failures": self.failures,
            "bytes_received": self.received,
            "bytes_per_second": round(self.rate()),
            "fetches": len(self.in_progress),
            "fetching": [
                {
                    "repository": transfer.blob.repository,
                    "digest": str(transfer.blob.digest),
                    "size": transfer.blob.size,
                    "start": transfer.start,
                    "stop": transfer.stop,
                    "received": transfer.received,
                    "seconds": round(now - transfer.began, 1),
                }
                for transfer in self.in_progress[:_SHOWN]
            ],
            "errors": [{"time": round(at, 3), "message": message} for at, message in self.errors],
        }


class WatchedCatalog:
    """A Catalog that counts its requests."""

    def __init__(self, catalog: Catalog, traffic: Traffic) -> None:
        self._catalog = catalog
        self._traffic = traffic

    async def _watch(self, request: Awaitable[T]) -> T:
        with self._traffic.request():
            return await request

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
    """A stream that counts its bytes."""

    def __init__(self, stream: BlobStream, transfer: Transfer, traffic: Traffic) -> None:
        self.start, self.stop, self.total = stream.start, stream.stop, stream.total
        self._stream, self._transfer, self._traffic = stream, transfer, traffic

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._traffic.add_received(self._transfer, len(piece))
            yield piece


class WatchedSource:
    """A BlobSource that counts its requests, and lists its transfers."""

    def __init__(self, source: BlobSource, traffic: Traffic) -> None:
        self._source = source
        self._traffic = traffic

    async def blob_size(self, repository: str, digest: Digest) -> int:
        with self._traffic.request():
            return await self._source.blob_size(repository, digest)

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        transfer = Transfer(blob, start, stop, trio.current_time())
        self._traffic.in_progress.append(transfer)
        try:
            # Around the whole transfer: a connection that is lost in the middle is a failure.
            with self._traffic.request():
                async with self._source.open_blob(blob, start, stop) as stream:
                    yield _WatchedStream(stream, transfer, self._traffic)
        finally:
            self._traffic.in_progress.remove(transfer)

    def report_corrupt(self, digest: Digest) -> bool:
        return self._source.report_corrupt(digest)

    def is_strained(self) -> bool:
        return self._source.is_strained()
