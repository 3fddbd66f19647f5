"""Ranges over several connections of a real client, with faults in some of them."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.content import Blob
from ocifs.errors import IntegrityError, OcifsError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Settings
from ocifs.store.blobs.bulk import PER_BLOB
from ocifs.store.blobs.cached import CachedBlobs
from tests.store.test_blobs import caching
from tests.support.clients import open_registry
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.throttled import NAME, throttled

SIZE = 24 * MIB + 777
CONTENT = random.Random(5).randbytes(SIZE)
OTHER = random.Random(6).randbytes(SIZE)
DIGEST = Digest.of(CONTENT)
BLOB = Blob("a/b", DIGEST, SIZE)
Fault = Callable[[int, int], Reply]


def part(start: int, stop: int, content: bytes = CONTENT, **headers: str) -> Reply:
    """The response to a range."""
    span = f"bytes {start}-{stop - 1}/{SIZE}"
    return http(206, content[start:stop], then="keep", content_range=span, **headers)


def faulty(fault: Fault, numbers: range) -> tuple[Handler, list[tuple[int, int]]]:
    """A registry with a fault in the ranges with these numbers, and its log."""
    log: list[tuple[int, int]] = []
    lock = threading.Lock()

    def handle(request: Request) -> Reply:
        if not request.target.endswith(str(DIGEST)):
            return http(200, then="keep")
        if "range" not in request.headers:
            return http(200, CONTENT, then="keep")
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), int(last) + 1
        with lock:
            log.append((start, stop))
            number = len(log) - 1
        return fault(start, stop) if number in numbers else part(start, stop, etag='"one"')

    return handle, log


@asynccontextmanager
async def reading(host: str, directory: Path) -> AsyncIterator[CachedBlobs]:
    """A cache over a client, for a host that is known to be faster with many connections."""
    async with open_registry(host, Settings()) as client, caching(client, directory) as blobs:  # type: ignore[arg-type]
        count = blobs._fetches._bulk.count
        count.limit, count.pace = PER_BLOB, 80e6
        yield blobs


async def read_all(blobs: CachedBlobs, blob: Blob = BLOB) -> bytes:
    pieces = [
        await blobs.read_blob(blob, offset, MIB, blob.size) for offset in range(0, blob.size, MIB)
    ]
    return b"".join(pieces)


FAULTS: dict[str, Fault] = {
    "a cut": lambda start, stop: Reply(part(start, stop).data[: (stop - start) // 2], "close"),
    "a reset": lambda start, stop: Reply(part(start, stop).data[: (stop - start) // 2], "reset"),
    "no answer": lambda start, stop: Reply(b"", "close"),
    "fewer bytes": lambda start, stop: part(start, (start + stop) // 2),
    "the whole blob": lambda start, stop: http(200, CONTENT, then="keep"),
    "another range": lambda start, stop: part(max(0, start - 1), stop - 1),
    "no Content-Range": lambda start, stop: http(206, CONTENT[start:stop], then="keep"),
    "a refusal": lambda start, stop: http(416, then="keep"),
    "too many requests": lambda start, stop: http(429, then="keep", retry_after="0"),
    "unavailable": lambda start, stop: http(503, then="keep"),
    "another ETag": lambda start, stop: part(start, stop, etag='"two"'),
}


@pytest.mark.parametrize("numbers", [range(0, 1), range(3, 4), range(2, 5)], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_some_of_the_ranges_is_not_seen(
    tmp_path: Path, fault: str, numbers: range
) -> None:
    handle, _ = faulty(FAULTS[fault], numbers)
    with fault_server(handle) as server:
        async with reading(server.host, tmp_path) as blobs:
            with trio.fail_after(60):
                assert await read_all(blobs) == CONTENT


async def test_ranges_of_another_version_are_never_served_to_the_end(tmp_path: Path) -> None:
    handle, _ = faulty(lambda start, stop: part(start, stop, OTHER, etag='"two"'), range(4, 5))
    with fault_server(handle) as server:
        async with reading(server.host, tmp_path) as blobs:
            with trio.fail_after(60), pytest.raises(IntegrityError):
                await read_all(blobs)


async def test_the_ranges_are_a_partition_of_the_blob(tmp_path: Path) -> None:
    handle, log = faulty(FAULTS["another ETag"], range(0))
    with fault_server(handle) as server:
        async with reading(server.host, tmp_path) as blobs:
            assert await read_all(blobs) == CONTENT
    spans = sorted(log)
    assert len(spans) > PER_BLOB
    assert [stop for _, stop in spans] == [*(start for start, _ in spans[1:]), SIZE]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_registry_that_refuses_once_gets_one_request_at_a_time(
    tmp_path: Path, status: int
) -> None:
    handle, log = faulty(lambda start, stop: http(status, then="keep"), range(0, 1))
    with fault_server(handle) as server:
        async with open_registry(server.host, Settings()) as client:
            assert not client.is_strained()
            async with caching(client, tmp_path) as blobs:  # type: ignore[arg-type]
                blobs._fetches._bulk.count.limit = PER_BLOB
                assert await read_all(blobs) == CONTENT
                assert blobs._fetches._bulk.count.limit == 1
            assert client.is_strained()
    assert len(log) < 2 * PER_BLOB


async def test_a_registry_with_few_requests_left_is_strained() -> None:
    limits = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "21;w=21600"}
    replies = iter([limits, {**limits, "RateLimit_Remaining": "20;w=21600"}, {**limits}])

    def handle(request: Request) -> Reply:
        return http(200, b'{"tags": []}', then="keep", **next(replies))

    with fault_server(handle) as server:
        async with open_registry(server.host, Settings()) as client:
            for expected in (False, True, False):
                await client.tags("a/b")
                assert client.is_strained() is expected


def layout_of(directory: Path, *contents: bytes) -> Path:
    """An OCI image layout with these blobs."""
    for content in contents:
        path = directory / "blobs" / "sha256" / hashlib.sha256(content).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (directory / "index.json").write_text(json.dumps({"manifests": []}))
    return directory


async def test_small_reads_do_not_wait_for_large_transfers(tmp_path: Path) -> None:
    """Their requests are answered while the large ones, which came first, are under way."""
    large = [CONTENT[number:] for number in range(4)]
    layout = layout_of(tmp_path / "layout", OTHER, *large)
    (tmp_path / "cache").mkdir()
    with throttled(layout, rate=200_000) as server:
        async with reading(server.host, tmp_path / "cache") as blobs, trio.open_nursery() as bulk:
            for content in large:
                bulk.start_soon(read_all, blobs, Blob(NAME, Digest.of(content), len(content)))
            count = blobs._fetches._bulk
            with trio.fail_after(60):
                while not count.is_full:
                    await trio.sleep(0.01)
                small = Blob(NAME, Digest.of(OTHER), SIZE)
                for offset in range(0, SIZE, 8 * MIB):
                    assert await blobs.read_blob(small, offset, 9) == OTHER[offset : offset + 9]
            log = await trio.to_thread.run_sync(server.requests)
            bulk.cancel_scope.cancel()
    others = [entry for entry in log if not entry.path.endswith(str(small.digest))]
    assert len(others) == 12
    assert not any(entry.ended for entry in others)
    answered = [entry for entry in log if entry.path.endswith(str(small.digest))]
    assert len(answered) == -(-SIZE // (8 * MIB))
    assert all(entry.sent == entry.stop - entry.start for entry in answered)


async def test_an_error_of_one_range_is_an_error_of_the_read(tmp_path: Path) -> None:
    handle, _ = faulty(lambda start, stop: http(403, then="keep"), range(0, 10_000))

    def refuse(request: Request) -> Reply:
        return handle(request) if "range" in request.headers else http(403, then="keep")

    with fault_server(refuse) as server:
        async with reading(server.host, tmp_path) as blobs:
            with trio.fail_after(60), pytest.raises(OcifsError):
                await read_all(blobs)
