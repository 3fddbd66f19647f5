"""Blobs on their way: one request for a whole or a part, and a second one for the whole if the
first was answered badly.

`RegistryClient.open_blob` calls this module, from the store's tasks. State: until when this
registry is not asked for ranges.

- Nothing is verified here: the store verifies. Headers are checked against the blob's size.
- A range that is refused or answered oddly is asked for once more, as the whole. If that succeeds,
  the registry is asked for wholes only, for RANGES_PAUSE seconds: a server that cannot do ranges
  today may after its next update.
- A range whose connection is lost before the answer is retried. If it is lost each time, the whole
  is asked for in the same way.
- The status of the whole is the verdict: only then is a 404 absence, a 403 a refusal.
- Failures that pass (429, 408, 502 to 504, 52x) say nothing about ranges and are retried as they
  are.
- A Content-Encoding is a label. Content of the blob's own size is served as it is; gzip data of
  another size are decoded. The digest decides whether that was right.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import httpx
import trio

from ocifs.concurrency import in_thread, note_progress
from ocifs.content import Blob, BlobStream
from ocifs.errors import IntegrityError, Malformed, Unreachable
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints, responses
from ocifs.oci.distribution.codings import codings, decoder_for, looks_encoded
from ocifs.oci.distribution.retry import RETRIED
from ocifs.registry.connection import Connection, headers_of
from ocifs.registry.http.transport import pieces
from ocifs.registry.request import RegistryRequest
from ocifs.settings import MIB

log = logging.getLogger("ocifs.registry")

RANGES_PAUSE = 600.0  # seconds for which a registry without ranges is asked for wholes
# bytes of the largest labelled blob of unknown length that is hashed to see whether it is encoded
_SNIFFED = MIB
_LOSSES = 2  # connections that ranges have lost in a row before the whole is asked for
_MEMBERS = 1_000  # of gzip in one encoded blob: each costs a copy of what follows it
_WHOLES = frozenset({200, 206})  # 206 from those that answer every question with a Content-Range
# A 500 is retried for any other question. Here the whole is asked for at once, which is a retry and
# more.
_ANSWERS = (frozenset({*range(200, 300), *range(400, 600)}) - RETRIED - {401, 407, 429}) | {500}


class BlobStreams:
    """Opens the blobs of one registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._wholes_until = -1.0
        self._losses = 0

    @asynccontextmanager
    async def open(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        """Bytes [start, stop), or the whole.

        Raises NotFound, AccessDenied, IntegrityError and so on.
        """
        target = endpoints.blob(blob.repository, blob.digest)
        fault = ""
        if (start, stop) != (0, blob.size) and trio.current_time() >= self._wholes_until:
            async with self._range(target, f"bytes={start}-{max(start, stop - 1)}") as part:
                fault = "a lost connection" if part is None else _fault_of(part, blob, start)
                if part is not None and not fault:
                    yield self._stream(part, blob, start, stop)
                    return
        async with self._connection.stream(RegistryRequest("GET", target, {}, _WHOLES)) as answer:
            stream = self._stream(answer, blob, 0, None)
            if fault:
                self._remember(fault)
            yield stream

    async def size(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob as a GET has it, of which nothing but its head is read; None if it has
        none either.
        """
        target = endpoints.blob(repository, digest)
        async with self._range(target, "bytes=0-0") as part:
            if part is not None:
                headers = headers_of(part)
                good = part.status_code == 416 or not _fault_of(part, Blob(repository, digest), 0)
                size = (
                    responses.read_size(part.status_code, headers)
                    if good and not codings(headers)
                    else None
                )
                if size is not None or part.status_code == 200:
                    return size
        async with self._connection.stream(RegistryRequest("GET", target, {}, _WHOLES)) as answer:
            headers = headers_of(answer)
            return None if codings(headers) else responses.read_size(answer.status_code, headers)

    @asynccontextmanager
    async def _range(self, target: str, span: str) -> AsyncIterator[httpx.Response | None]:
        """The answer to a range; None if connections are lost before each answer."""
        async with AsyncExitStack() as stack:
            answer = None
            try:
                question = RegistryRequest("GET", target, {"Range": span}, _ANSWERS)
                answer = await stack.enter_async_context(self._connection.stream(question))
                self._losses = 0
            except Unreachable as error:
                self._losses += self._connection.limits.retries if error.was_connected else 0
                if not error.was_connected or self._losses < _LOSSES:
                    raise
            yield answer

    def _remember(self, fault: str) -> None:
        host = self._connection.host
        self._wholes_until = trio.current_time() + RANGES_PAUSE
        log.info(
            "%s answers a range with %s: only wholes are asked for during %g s",
            host,
            fault,
            RANGES_PAUSE,
        )

    def _stream(
        self, answer: httpx.Response, blob: Blob, start: int, stop: int | None
    ) -> BlobStream:
        """The bytes of an answer; `stop`: None if the whole was asked for.

        Raises IntegrityError or Malformed if its headers cannot be those of this blob.
        """
        headers = headers_of(answer)
        name = f"{self._connection.host}: {blob.digest}"
        size = None if blob.size == UNKNOWN_SIZE else blob.size
        if answer.status_code == 206:
            if fault := _fault_of(answer, blob, start):
                raise Malformed(f"{name}: the registry answered with {fault}")
            part = responses.read_range(206, headers, start)
            assert part.stop is not None
            if stop is None and part.stop != (part.total if size is None else size):
                raise Malformed(
                    f"{name}: the registry answered with 206 and a part, and the whole was asked for"
                )
            return _PartStream(
                answer, part, part.stop if stop is None else min(stop, part.stop), name
            )
        part = responses.read_range(200, headers, 0)
        if codings(headers) and size is not None and part.total != size:
            return _LabelledStream(answer, blob, name)
        if part.total is not None and size is not None and part.total != size:
            raise IntegrityError(
                f"{name} is served with {part.total} bytes, its descriptor has {size}"
            )
        return _PartStream(answer, part, part.total if size is None else size, name)


def _fault_of(answer: httpx.Response, blob: Blob, start: int) -> str:
    """What is wrong with the answer to a range, as it is logged; "" if it can be used."""
    size = None if blob.size == UNKNOWN_SIZE else blob.size
    if answer.status_code == 200:
        return _fault_of_200(headers_of(answer), size)
    return (
        _fault_of_206(headers_of(answer), size, start)
        if answer.status_code == 206
        else str(answer.status_code)
    )


def _fault_of_200(headers: Mapping[str, str], size: int | None) -> str:
    """A 200 is the whole, unless its headers contradict that."""
    length = responses.read_size(200, headers)
    if "content-range" in headers and (size is None or length != size):
        return "200 and a Content-Range"
    odd = size is not None and length not in (None, size) and not codings(headers)
    return f"200 and {length} bytes" if odd else ""


def _fault_of_206(headers: Mapping[str, str], size: int | None, start: int) -> str:
    if headers.get("content-type", "").lower().startswith("multipart/"):
        return "206 and several parts"
    try:
        part = responses.read_range(206, headers, start)
    except Malformed as error:
        return f"206, where {error}"
    stop, length = part.stop or 0, responses.read_size(200, headers)
    if size is not None and (part.total not in (None, size) or stop > size):
        return f"206 of {part.total or stop} bytes"
    if codings(headers) and part.total is None:
        return "206 of encoded content"
    return (
        "206 and the whole"
        if length is not None and length == size and length > stop - start
        else ""
    )


class _PartStream:
    """A BlobStream over an answer: never more than was announced, an error if it is less."""

    def __init__(
        self, answer: httpx.Response, part: responses.ResponseRange, end: int | None, name: str
    ) -> None:
        self.start = part.start
        self.total = part.total
        self._answer = answer
        self._end = end
        self._name = name

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        async with aclosing(pieces(self._answer)) as coming:
            async for piece in coming:
                note_progress()
                if self._end is not None and position + len(piece) > self._end:
                    if self._answer.status_code == 200:
                        raise IntegrityError(f"{self._name} is longer than {self._end} bytes")
                    if position < self._end:
                        yield piece[: self._end - position]
                    return
                position += len(piece)
                yield piece
        if self._end is not None and position < self._end:
            raise Unreachable(
                f"{self._name}: the connection was lost after {position - self.start} bytes"
            )


class _LabelledStream:
    """A BlobStream over a whole that is labelled as encoded and is not announced with the blob's
    size.

    Of a chunked answer the length is not known, so it may be the blob itself under a wrong label. A
    small one is hashed to find out. A large one is decoded if its length was announced: it cannot
    be the blob.
    """

    def __init__(self, answer: httpx.Response, blob: Blob, name: str) -> None:
        self.start = 0
        self.total: int | None = blob.size
        self._answer = answer
        self._blob = blob
        self._name = name

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = 0
        async with aclosing(self._plain()) as coming:
            async for piece in coming:
                note_progress()
                position += len(piece)
                if position > self._blob.size:
                    raise IntegrityError(f"{self._name} is longer than {self._blob.size} bytes")
                yield piece
        if position < self._blob.size:
            raise Unreachable(f"{self._name}: the connection was lost after {position} bytes")

    async def _plain(self) -> AsyncGenerator[bytes, None]:
        """The content without its coding, if it has one."""
        async with aclosing(pieces(self._answer)) as coming:
            read = bytearray()
            async for piece in coming:
                read += piece
                if len(read) >= _SNIFFED or (len(read) > 1 and self._blob.size > _SNIFFED):
                    break
            start = bytes(read)
            if not self._is_encoded(start):
                yield start
                async for piece in coming:
                    yield piece
                return
            decoder, piece, members = decoder_for(start), start, 1
            while piece:
                try:
                    part = await in_thread(decoder.decompress, piece, MIB)
                except zlib.error:
                    raise Malformed(f"{self._name}: invalid compressed data") from None
                if part:
                    yield part
                piece = decoder.unconsumed_tail or decoder.unused_data or await anext(coming, b"")
                if decoder.eof and piece:
                    members += 1
                    if members > _MEMBERS:
                        raise Malformed(f"{self._name}: more than {_MEMBERS} gzip members")
                    decoder = decoder_for(piece)

    def _is_encoded(self, start: bytes) -> bool:
        headers = headers_of(self._answer)
        if not looks_encoded(codings(headers), start):
            return False
        if responses.read_size(200, headers) is not None:
            return True
        return self._blob.size <= _SNIFFED and not self._blob.digest.matches(start)
