"""Registries that restart, and registries that stay away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.content import Blob, BlobStream
from ocifs.errors import ConnectionRefused, NotFound, OcifsError, RegistryFailed, Unreachable
from ocifs.oci.digest import Digest
from ocifs.store.names.outage import BackoffSource, Failures, Outage
from tests.store.source import MemorySource
from tests.store.test_blobs import CONTENT, caching, whole

REFUSED = ConnectionRefused("nothing listens")
TIMEOUT = 30.0


class Away(MemorySource):
    """A registry that refuses connections until a point in time."""

    back = 0.0
    asked = 0

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        self.asked += 1
        if trio.current_time() < self.back:
            raise REFUSED
        async with super().open_blob(blob, start, stop) as stream:
            yield stream

    async def blob_size(self, repository: str, digest: Digest) -> int:
        if trio.current_time() < self.back:
            raise REFUSED
        return await super().blob_size(repository, digest)


@pytest.mark.parametrize("seconds", [0.1, 2, 3, 10, 14])
async def test_a_restart_is_not_seen_by_readers(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, seconds: float
) -> None:
    source = Away()
    blob = source.put(CONTENT)
    outage = Outage(60, TIMEOUT / 2)
    async with caching(BackoffSource(source, outage), tmp_path) as blobs:  # type: ignore[arg-type]
        await blobs.read_blob(blob, 0, 10)
        source.back = trio.current_time() + seconds
        began = trio.current_time()
        assert await whole(blobs, blob) == CONTENT
        assert seconds <= trio.current_time() - began < seconds + 2
        assert await BackoffSource(source, outage).blob_size("repository", blob.digest) == blob.size
    assert source.asked < 40


async def test_a_registry_that_stays_away_fails_once_late_and_then_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source = Away()
    blob = source.put(CONTENT)
    async with caching(BackoffSource(source, Outage(60, TIMEOUT / 2)), tmp_path) as blobs:  # type: ignore[arg-type]
        await blobs.read_blob(blob, 0, 10)
        source.back = trio.current_time() + 1000
        began = trio.current_time()
        with pytest.raises(ConnectionRefused):
            await whole(blobs, blob)
        assert TIMEOUT / 2 <= trio.current_time() - began < TIMEOUT
        for _ in range(5):
            began = trio.current_time()
            with pytest.raises(ConnectionRefused):
                await whole(blobs, blob)
            assert trio.current_time() - began < 1
        await trio.sleep(1000)
        assert await whole(blobs, blob) == CONTENT


async def test_a_registry_that_was_never_reached_fails_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source = Away()
    source.back = 1000
    blob = source.put(CONTENT)
    async with caching(BackoffSource(source, Outage(60, TIMEOUT / 2)), tmp_path) as blobs:  # type: ignore[arg-type]
        began = trio.current_time()
        with pytest.raises(ConnectionRefused):
            await blobs.read_blob(blob, 0, 10)
        assert trio.current_time() - began < 1


@pytest.mark.parametrize("error", [Unreachable("TLS fails"), RegistryFailed("500"), NotFound("no")])
async def test_other_errors_are_not_waited_out(
    autojump_clock: trio.testing.MockClock, error: OcifsError
) -> None:
    outage = Outage(60, TIMEOUT / 2)
    outage.over()

    async def question() -> None:
        raise error

    began = trio.current_time()
    with pytest.raises(type(error)):
        await outage.ask(question)
    assert trio.current_time() == began


async def test_a_question_with_another_answer_does_not_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outage = Outage(60, TIMEOUT / 2)
    outage.over()

    async def question() -> None:
        raise REFUSED

    began = trio.current_time()
    with pytest.raises(ConnectionRefused):
        await outage.ask(question, wait_for_restart=False)
    assert trio.current_time() == began


BROKEN = RegistryFailed("500", status=500)


async def test_a_failing_question_fails_at_once_in_its_pause_and_no_other_does(
    autojump_clock,
) -> None:
    failures, asked = Failures(60), []

    async def ask(key: str, error: OcifsError | None = None) -> None:
        async def question() -> None:
            asked.append(key)
            if error is not None:
                raise error

        await failures.ask(key, question)

    for _ in range(3):
        with pytest.raises(RegistryFailed):
            await ask("tags a/b", BROKEN)
    for key in ("tags c/d", "tag a/b:v1", "manifest a/b@x", "referrers a/b@x", "catalog"):
        await ask(key)
    assert asked == [
        "tags a/b",
        "tags c/d",
        "tag a/b:v1",
        "manifest a/b@x",
        "referrers a/b@x",
        "catalog",
    ]
    await trio.sleep(1.1)
    await ask("tags a/b")


async def test_a_kind_of_question_that_fails_for_several_is_left_alone_for_a_pause(
    autojump_clock,
) -> None:
    failures, asked = Failures(60), 0

    async def fail() -> None:
        nonlocal asked
        asked += 1
        raise BROKEN

    async def succeed() -> None:
        return None

    for number in range(50):
        with pytest.raises(RegistryFailed):
            await failures.ask(f"tag a/b:v{number}", fail)
    assert asked == 3
    await failures.ask("manifest a/b@x", succeed)
    await trio.sleep(1.1)
    await failures.ask("tag a/b:v0", succeed)
    await failures.ask("tag a/b:v99", succeed)
