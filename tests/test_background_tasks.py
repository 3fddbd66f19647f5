"""Errors in the tasks of a mount: an error ends one piece of work, and the task continues."""

from __future__ import annotations

import gzip
import logging
import os
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.content import Blob
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.service import LayerService
from ocifs.layers.spans.budget import MemoryBudget
from ocifs.layers.spans.reader import SpanReader
from ocifs.oci.digest import Digest
from ocifs.scrape import open_listeners, serve_metrics
from ocifs.settings import KIB, MIB, CacheSettings, Limits
from ocifs.store.disk import CacheDirectory, Disk
from ocifs.store.upkeep.housekeeper import Housekeeper
from ocifs.store.upkeep.inventory import inventory
from tests.layers.tars import entry, tar
from tests.tree.memory import MemoryShelf

FAULTS = [
    OSError(5, "Input/output error"),
    RuntimeError("can't start new thread"),
    MemoryError(),
    ValueError("a bug"),
]
IDS = ["disk", "threads", "memory", "bug"]


@dataclass
class Failing:
    """IdleCloser files, and a BlobReader, that fail as often as they are used."""

    error: Exception
    content: bytes = b""
    failing: bool = True
    failed: int = 0
    held: list[Digest] = field(default_factory=list)

    def _fail(self) -> None:
        if self.failing:
            self.failed += 1
            raise self.error

    def close_idle(self, idle: float) -> None:
        self._fail()

    def render(self) -> bytes:
        self._fail()
        return b"fine"

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return len(self.content)

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        self._fail()
        return self.content[offset : offset + length]

    def blob_at_hand(self, blob: Blob, offset: int, length: int) -> bytes | None:
        return None

    def acquire(self, digest: Digest) -> None:
        self.held.append(digest)

    def release(self, digest: Digest) -> None:
        self.held.remove(digest)


def put(disk: Disk, number: int) -> None:
    content = random.Random(number).randbytes(MIB)
    disk.write(disk.whole(Digest.of(content)), content)
    with suppress(FileNotFoundError):  # it was evicted at once
        os.utime(disk.whole(Digest.of(content)), (number, number))


@pytest.mark.parametrize("error", FAULTS, ids=IDS)
async def test_the_cache_is_tidied_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tmp_path.chmod(0o700)
    keeps = Failing(error)
    async with trio.open_nursery() as nursery:
        chosen = CacheSettings(directory=tmp_path, size=4 * MIB, free_space=0)
        housekeeper = Housekeeper(CacheDirectory(tmp_path), chosen, [keeps])
        disk = Disk(tmp_path, housekeeper)
        nursery.start_soon(housekeeper.run)
        with trio.fail_after(60):
            number = 0
            while keeps.failed < 2:  # looks that failed
                await trio.to_thread.run_sync(put, disk, number)
                number += 1
            keeps.failing = False
            while sum(item.size for item in inventory(disk)) > 5 * MIB:
                await trio.to_thread.run_sync(put, disk, number)
                number += 1
        nursery.cancel_scope.cancel()
    assert any(record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("error", FAULTS, ids=IDS)
async def test_metrics_are_served_on(error: Exception) -> None:
    metrics = Failing(error)
    listeners = await open_listeners(("127.0.0.1", 0))
    port = listeners[0].socket.getsockname()[1]

    async def ask() -> bytes:
        with trio.fail_after(30):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
                )
                await stream.send_eof()
                return b"".join([piece async for piece in stream])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_metrics, listeners, metrics.render)
        assert await ask() == b""
        metrics.failing = False
        assert (await ask()).endswith(b"fine")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", FAULTS, ids=IDS)
async def test_reading_ahead_and_prefetching_end_alone(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    content = random.Random(1).randbytes(6 * MIB)
    plain = tar(entry("big", content=content))
    blobs = Failing(error, gzip.compress(plain, 1, mtime=0), failing=False)
    blob = Blob("repository", Digest.of(blobs.content), len(blobs.content))
    async with trio.open_nursery() as nursery:
        layer_service = LayerService(blobs, MemoryShelf(), nursery, Limits())
        layer = Layer(blob)
        index = await layer_service.index(layer)
        assert index.spans is not None
        reader = SpanReader(blobs, nursery, MemoryBudget(1 << 20))
        for span in list(index.spans)[
            :4
        ]:  # in a row, so that the next are decoded before they are asked for
            blobs.failing = False
            assert (
                len(await reader.read(blob, index.spans, span.position, span.length)) == span.length
            )
            blobs.failing = True
            await trio.testing.wait_all_tasks_blocked()
        assert blobs.failed
        layer_service._reader._prefetch(layer, replace(index, prefetch=64 * KIB), 0)
        failed = blobs.failed
        await trio.testing.wait_all_tasks_blocked()
        assert blobs.failed == failed + 1
        blobs.failing = False
        last = list(index.spans)[-1]
        assert len(await reader.read(blob, index.spans, last.position, last.length)) == last.length
        nursery.cancel_scope.cancel()
    assert any(record.levelno == logging.ERROR for record in caplog.records)


REFUSED = """
import threading
from ocifs.layers.indexing.worker import PipelineWorker
start, left = threading.Thread.start, 3
def refuse(self):
    global left
    left -= 1
    if left >= 0:
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = refuse
with PipelineWorker(lambda pieces: b"".join(pieces)) as beside:
    beside.put(b"done")
print(beside.result)
"""


def test_listing_a_layer_waits_for_a_thread() -> None:
    command = [sys.executable, "-c", REFUSED]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "b'done'\n", done.stderr
