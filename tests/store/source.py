"""A BlobSource in memory with streams that fail as those of registries do. Not a mock."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ocifs.content import Blob, BlobStream
from ocifs.errors import NotFound, OcifsError, Unreachable
from ocifs.oci.digest import Digest


@dataclass
class Fault:
    """A fault of one stream.

    `error` is raised after `after` bytes. Without an error the stream ends there.
    """

    error: OcifsError | None = None
    after: int | None = None
    from_zero: bool = False
    total: Callable[[int], int | None] = lambda size: size
    extra: bytes = b""
    content: Callable[[bytes], bytes] = lambda data: data


def broken(after: int) -> Fault:
    """A connection that is lost after some bytes."""
    return Fault(Unreachable("the connection was lost"), after)


@dataclass
class MemorySource:
    """Blobs by digest.

    Each of `faults` is for one stream, and `always` is for every stream after them. `others` is the
    number of other places that may be tried after corrupt content. `most_open` is the number of
    streams that were open at the same time. After `hangs_after` bytes, all streams hang.
    """

    piece: int = 40_000
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault = field(default_factory=Fault)
    content: dict[Digest, bytes] = field(default_factory=dict)
    opened: list[tuple[int, int]] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    gate: trio.Event | None = None
    others: int = 0
    corrupt: list[Digest] = field(default_factory=list)
    strained: bool = False
    hangs_after: int | None = None
    most_open: int = 0
    open_now: int = 0

    def put(self, data: bytes) -> Blob:
        """Store a blob. Returns how to reach it."""
        digest = Digest.of(data)
        self.content[digest] = data
        return Blob("repository", digest, len(data))

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return len(self._find(digest))

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        self.opened.append((start, stop))
        data = self._find(blob.digest)
        fault = self.faults.popleft() if self.faults else self.always
        if fault.error is not None and fault.after is None:
            raise fault.error
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            yield _Stream(self, fault, data, (start, stop))
        finally:
            self.open_now -= 1

    def report_corrupt(self, digest: Digest) -> bool:
        self.corrupt.append(digest)
        return len(self.corrupt) <= self.others

    def is_strained(self) -> bool:
        return self.strained

    def _find(self, digest: Digest) -> bytes:
        try:
            return self.content[digest]
        except KeyError:
            raise NotFound(f"no {digest}") from None


class _Stream:
    def __init__(
        self, source: MemorySource, fault: Fault, data: bytes, span: tuple[int, int]
    ) -> None:
        start, stop = (0, len(data)) if fault.from_zero else span
        self.start = start
        self.stop: int | None = stop
        self.total = fault.total(len(data))
        self._source = source
        self._fault = fault
        self._bytes = fault.content(data)[start:stop] + fault.extra

    async def __aiter__(self) -> AsyncIterator[bytes]:
        ends = (
            len(self._bytes)
            if self._fault.after is None
            else min(self._fault.after, len(self._bytes))
        )
        for position in range(0, ends, self._source.piece):
            await trio.lowlevel.checkpoint()
            hangs_after = self._source.hangs_after
            if hangs_after is not None and sum(self._source.served) >= hangs_after:
                await trio.sleep_forever()
            piece = self._bytes[position : min(position + self._source.piece, ends)]
            self._source.served.append(len(piece))
            yield piece
        if self._fault.error is not None:
            raise self._fault.error
