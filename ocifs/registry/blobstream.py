"""Blob streams: one request for a range or the whole blob, and a second one for the whole if the
first failed.

`RegistryClient.open_blob` calls this module, from the store's tasks. State: until when ranges are
not requested from this registry, and how many connections ranges have lost in a row.

- Nothing is verified here: the store verifies. Headers are compared with the blob's size.
- If a range is refused, or its response is faulty, the whole blob is requested. If that succeeds,
  only whole blobs are requested for RANGES_PAUSE seconds. The server's next update may fix it.
- A range is retried if the connection is lost before the response. If every retry is lost, the
  whole blob is requested in the same way.
- The status of the whole blob is the verdict: only then does 404 mean absence, and 403 a refusal.
- Transient failures (429, 408, 502 to 504, 52x) are unrelated to ranges and are retried as they
  are.
- Content-Encoding is only a label. Content of the blob's own size is served unchanged; gzip data of
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
from ocifs.registry.bodies import headers_of
from ocifs.registry.connection import Connection
from ocifs.registry.http.transport import iter_body
from ocifs.registry.request import RegistryRequest
from ocifs.settings import MIB

log = logging.getLogger("ocifs.registry")

RANGES_PAUSE = 600.0  # seconds
# Labelled blobs without an announced length, up to this size, are hashed to detect encoded content.
_SNIFFED = MIB
_LOST_RANGES = 2  # lost connections in a row before the whole blob is requested
_MEMBERS = 1_000  # gzip members in one encoded blob: each costs a copy of the rest of a piece
# Some servers send every response with a Content-Range and thus as 206.
_WHOLE_STATUSES = frozenset({200, 206})
# Any status except transient failures and challenges. A 500 is retried for other requests. Here it
# leads to a request for the whole blob, which is a retry as well.
_RANGE_STATUSES = (frozenset({*range(200, 300), *range(400, 600)}) - RETRIED - {401, 407, 429}) | {
    500
}


class BlobStreams:
    """Opens the blobs of one registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ranges_paused_until = -1.0
        self._lost = 0

    @asynccontextmanager
    async def open(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        """Open bytes [start, stop), or the whole blob.

        Raises NotFound, AccessDenied, IntegrityError and other errors.
        """
        target = endpoints.blob(blob.repository, blob.digest)
        fault = ""
        # The whole blob is requested without a range, which every server supports.
        if (start, stop) != (0, blob.size) and trio.current_time() >= self._ranges_paused_until:
            # An empty range is invalid (RFC 9110, 14.1.1), so one byte is requested instead.
            async with self._open_range(
                target, f"bytes={start}-{max(start, stop - 1)}"
            ) as response:
                fault = "a lost connection" if response is None else _fault(response, blob, start)
                if response is not None and not fault:
                    yield self._stream(response, blob, start, stop)
                    return
        request = RegistryRequest("GET", target, {}, _WHOLE_STATUSES)
        async with self._connection.stream(request) as response:
            stream = self._stream(response, blob, 0, None)
            # Only now: if the whole blob fails as well, ranges are not the reason.
            if fault:
                self._pause_ranges(fault)
            yield stream

    async def size(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob in the headers of a GET; None if they have none. Reads no body."""
        target = endpoints.blob(repository, digest)
        async with self._open_range(target, "bytes=0-0") as response:
            if response is not None:
                headers, status = headers_of(response), response.status_code
                # The 416 for an empty blob has its size in Content-Range.
                is_good = status == 416 or not _fault(response, Blob(repository, digest), 0)
                size = None
                if is_good and not codings(headers):
                    size = responses.read_size(status, headers)
                # A 200 has the headers of the whole blob: a request without a range would show the
                # same.
                if size is not None or status == 200:
                    return size
        request = RegistryRequest("GET", target, {}, _WHOLE_STATUSES)
        async with self._connection.stream(request) as response:
            headers = headers_of(response)
            return None if codings(headers) else responses.read_size(response.status_code, headers)

    @asynccontextmanager
    async def _open_range(self, target: str, span: str) -> AsyncIterator[httpx.Response | None]:
        """The response to a range; None if the connections for ranges are lost repeatedly."""
        async with AsyncExitStack() as stack:
            response = None
            try:
                request = RegistryRequest("GET", target, {"Range": span}, _RANGE_STATUSES)
                response = await stack.enter_async_context(self._connection.stream(request))
                self._lost = 0
            except Unreachable as error:
                # Each attempt of the throttle has lost a connection.
                self._lost += self._connection.limits.retries if error.was_connected else 0
                if not error.was_connected or self._lost < _LOST_RANGES:
                    raise
            yield response

    def _pause_ranges(self, fault: str) -> None:
        self._ranges_paused_until = trio.current_time() + RANGES_PAUSE
        log.info(
            "%s answers a range with %s: only whole blobs are requested for %g s",
            self._connection.host,
            fault,
            RANGES_PAUSE,
        )

    def _stream(
        self, response: httpx.Response, blob: Blob, start: int, stop: int | None
    ) -> BlobStream:
        """The bytes of a response; `stop`: None if the whole blob was requested.

        Raises IntegrityError or Malformed if the headers do not match the blob.
        """
        headers = headers_of(response)
        name = f"{self._connection.host}: {blob.digest}"
        size = None if blob.size == UNKNOWN_SIZE else blob.size
        if response.status_code == 206:
            if fault := _fault(response, blob, start):
                raise Malformed(f"{name}: the registry answered with {fault}")
            part = responses.read_range(206, headers, start)
            assert part.stop is not None
            if stop is None and part.stop != (part.total if size is None else size):
                raise Malformed(f"{name}: the registry answered with 206 and a part of the blob")
            end = part.stop if stop is None else min(stop, part.stop)
            return _PartStream(response, part, end, name)
        part = responses.read_range(200, headers, 0)
        if codings(headers) and size is not None and part.total != size:
            return _LabelledStream(response, blob, name)
        if part.total is not None and size is not None and part.total != size:
            mismatch = IntegrityError(
                f"{name}: the response has {part.total} bytes instead of {size}"
            )
            # No byte was served, so the open file stays usable for the next attempt.
            mismatch.is_transient = True
            raise mismatch
        return _PartStream(response, part, part.total if size is None else size, name)


def _fault(response: httpx.Response, blob: Blob, start: int) -> str:
    """The fault in the response to a range, for the log; "" if it can be used."""
    size = None if blob.size == UNKNOWN_SIZE else blob.size
    if response.status_code == 200:
        return _fault_of_200(headers_of(response), size)
    if response.status_code == 206:
        return _fault_of_206(headers_of(response), size, start)
    return str(response.status_code)


def _fault_of_200(headers: Mapping[str, str], size: int | None) -> str:
    """A 200 has the whole blob, unless its headers contradict that."""
    length = responses.read_size(200, headers)
    if "content-range" in headers and (size is None or length != size):
        return "200 and a Content-Range"
    is_odd = size is not None and length not in (None, size) and not codings(headers)
    return f"200 and {length} bytes" if is_odd else ""


def _fault_of_206(headers: Mapping[str, str], size: int | None, start: int) -> str:
    if headers.get("content-type", "").lower().startswith("multipart/"):
        return "206 and several parts"
    try:
        part = responses.read_range(206, headers, start)
    except Malformed as error:
        return f"206 ({error})"
    stop, length = part.stop or 0, responses.read_size(200, headers)
    if size is not None and (part.total not in (None, size) or stop > size):
        return f"206 of {part.total or stop} bytes"
    # Only a total of the blob's own size shows that the positions do not count encoded bytes.
    if codings(headers) and part.total is None:
        return "206 of encoded content"
    if length is not None and length == size and length > stop - start:
        return "206 and the whole blob"
    return ""


class _PartStream:
    """A BlobStream over a response: the announced bytes, or an error if there are fewer."""

    def __init__(
        self, response: httpx.Response, part: responses.ResponseRange, end: int | None, name: str
    ) -> None:
        self.start = part.start
        self.stop = self._end = end
        self.total = part.total
        self._response = response
        self._name = name

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        async with aclosing(iter_body(self._response)) as pieces:
            async for piece in pieces:
                note_progress()
                if self._end is not None and position + len(piece) > self._end:
                    # Some servers send more than the requested range. A whole blob that is too long
                    # is wrong.
                    if self._response.status_code == 200:
                        raise IntegrityError(f"{self._name}: more than {self._end} bytes")
                    if position < self._end:
                        yield piece[: self._end - position]
                    return
                position += len(piece)
                yield piece
        if self._end is not None and position < self._end:
            # As after a lost connection, the store requests the rest from the first missing block.
            raise Unreachable(
                f"{self._name}: the connection was lost after {position - self.start} bytes"
            )


class _LabelledStream:
    """A BlobStream over a whole blob with a Content-Encoding and without the blob's size.

    The length of a chunked response is unknown, so it may be the blob itself with a wrong label. A
    small one is hashed to find out. A large one is decoded if its length was announced, since then
    it cannot be the blob.
    """

    def __init__(self, response: httpx.Response, blob: Blob, name: str) -> None:
        self.start = 0
        self.stop: int | None = blob.size
        self.total: int | None = blob.size
        self._response = response
        self._blob = blob
        self._name = name

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = 0
        async with aclosing(self._content()) as pieces:
            async for piece in pieces:
                note_progress()
                position += len(piece)
                if position > self._blob.size:
                    raise IntegrityError(f"{self._name}: more than {self._blob.size} bytes")
                yield piece
        if position < self._blob.size:
            raise Unreachable(f"{self._name}: the connection was lost after {position} bytes")

    async def _content(self) -> AsyncGenerator[bytes, None]:
        """The content, decoded if it is encoded."""
        async with aclosing(iter_body(self._response)) as pieces:
            received = bytearray()
            # Two bytes show whether a large blob is gzip data. A small one is read completely.
            async for piece in pieces:
                received += piece
                if len(received) >= _SNIFFED or (len(received) > 1 and self._blob.size > _SNIFFED):
                    break
            start = bytes(received)
            if not self._is_encoded(start):
                yield start
                async for piece in pieces:
                    yield piece
                return
            decoder, piece, members = decoder_for(start), start, 1
            while piece:
                try:
                    # At most a mebibyte at once: gzip data can expand a thousandfold.
                    part = await in_thread(decoder.decompress, piece, MIB)
                except zlib.error:
                    raise Malformed(f"{self._name}: invalid compressed data") from None
                if part:
                    yield part
                piece = decoder.unconsumed_tail or decoder.unused_data or await anext(pieces, b"")
                if decoder.eof and piece:
                    members += 1
                    if members > _MEMBERS:
                        raise Malformed(f"{self._name}: more than {_MEMBERS} gzip members")
                    decoder = decoder_for(piece)

    def _is_encoded(self, start: bytes) -> bool:
        headers = headers_of(self._response)
        if not looks_encoded(codings(headers), start):
            return False
        if responses.read_size(200, headers) is not None:
            return True
        return self._blob.size <= _SNIFFED and not self._blob.digest.matches(start)
