"""Names with a time to live, over a registry in memory, with the clock of trio."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ocifs.errors import (
    AccessDenied,
    CatalogUnavailable,
    ConnectionRefused,
    DeadlineExceeded,
    NotFound,
    OcifsError,
    RateLimited,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.settings import CacheSettings, Settings
from ocifs.store.disk import Disk
from ocifs.store.names.access import RegistryIdentity
from ocifs.store.names.cached import CachedCatalog
from tests.tree.memory import MemoryRegistry

TTL, NEGATIVE = 60.0, 5.0
OUTAGES = [
    Unreachable("gone"),
    ConnectionRefused("gone"),
    DeadlineExceeded("slow"),
    RegistryFailed("500"),
]


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """A clock that moves only when a test moves it, since threads write to the disk meanwhile."""
    return mock_clock


@pytest.fixture
def memory() -> MemoryRegistry:
    made = MemoryRegistry()
    made.put_manifest("a/b", "v1", {"layers": []})
    return made


@asynccontextmanager
async def caching(
    memory: MemoryRegistry,
    directory: Path,
    *,
    offline: bool = False,
    registry: RegistryIdentity | None = None,
) -> AsyncIterator[CachedCatalog]:
    directory.chmod(0o700)
    chosen = Settings(cache=CacheSettings(directory=directory, offline=offline))
    chosen = replace(chosen, timing=replace(chosen.timing, tag_ttl=TTL, negative_ttl=NEGATIVE))
    async with trio.open_nursery() as nursery:
        yield CachedCatalog(
            memory, registry or RegistryIdentity("host"), Disk(directory), nursery, chosen
        )
        nursery.cancel_scope.cancel()


async def test_a_name_is_believed_for_its_time_and_then_asked_for_again(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        first = await catalog.resolve("a/b", "v1")
        second = memory.put_manifest("a/b", "v1", {"layers": [], "annotations": {"x": "y"}})
        clock.jump(TTL - 1)
        assert await catalog.resolve("a/b", "v1") == first
        clock.jump(2)
        assert str((await catalog.resolve("a/b", "v1")).digest) == second["digest"]
    assert memory.asked == ["resolve a/b:v1"] * 2


async def test_lists_are_believed_too(clock, memory, tmp_path: Path) -> None:
    async with caching(memory, tmp_path) as catalog:
        for _ in range(3):
            assert await catalog.tags("a/b") == ("v1",)
            assert await catalog.repositories() == ("a/b",)
    assert memory.asked == ["tags a/b", "catalog"]


async def test_absence_is_believed_for_a_short_time_only(clock, memory, tmp_path: Path) -> None:
    async with caching(memory, tmp_path) as catalog:
        for _ in range(2):
            with pytest.raises(NotFound):
                await catalog.resolve("a/b", "v2")
        assert memory.asked == ["resolve a/b:v2"]
        memory.put_manifest("a/b", "v2", {"layers": []})
        clock.jump(NEGATIVE + 1)
        assert (await catalog.resolve("a/b", "v2")).media_type == mediatype.OCI_MANIFEST


async def test_a_catalog_that_is_refused_is_not_asked_for_at_once_again(
    clock, memory, tmp_path: Path
) -> None:
    memory.lists_catalog = False
    async with caching(memory, tmp_path) as catalog:
        for _ in range(2):
            with pytest.raises(CatalogUnavailable):
                await catalog.repositories()
    assert memory.asked == ["catalog"]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
async def test_in_an_outage_what_was_last_known_is_given(
    clock, memory, tmp_path: Path, outage: OcifsError
) -> None:
    async with caching(memory, tmp_path) as catalog:
        known = await catalog.resolve("a/b", "v1")
        tags = await catalog.tags("a/b")
        memory.down = outage
        clock.jump(TTL + 1)
        assert await catalog.resolve("a/b", "v1") == known
        assert await catalog.tags("a/b") == tags
        assert catalog.stale
    async with caching(memory, tmp_path) as later:
        assert await later.resolve("a/b", "v1") == known


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
async def test_an_outage_with_nothing_known_is_never_absence(
    clock, memory, tmp_path: Path, outage: OcifsError
) -> None:
    memory.down = outage
    digest = Digest.of(b"never seen")
    async with caching(memory, tmp_path) as catalog:
        for question in (
            lambda: catalog.resolve("a/b", "v1"),
            lambda: catalog.tags("a/b"),
            catalog.repositories,
            lambda: catalog.manifest("a/b", digest),
            lambda: catalog.referrers("a/b", digest),
        ):
            with pytest.raises(type(outage)):
                await question()


@pytest.mark.parametrize(
    "answer", [AccessDenied("403"), RateLimited("429")], ids=lambda error: type(error).__name__
)
async def test_a_refusal_is_an_answer_and_not_covered_up(
    clock, memory, tmp_path: Path, answer: OcifsError
) -> None:
    async with caching(memory, tmp_path) as catalog:
        await catalog.resolve("a/b", "v1")
        memory.down = answer
        clock.jump(TTL + 1)
        with pytest.raises(type(answer)):
            await catalog.resolve("a/b", "v1")


async def test_a_name_that_was_deleted_is_absent_although_it_was_known(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        await catalog.resolve("a/b", "v1")
        del memory.known["a/b"]["v1"]
        clock.jump(TTL + 1)
        with pytest.raises(NotFound):
            await catalog.resolve("a/b", "v1")


async def test_a_name_that_was_said_to_be_gone_does_not_come_back_in_an_outage(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        await catalog.resolve("a/b", "v1")
        del memory.known["a/b"]["v1"]
        clock.jump(TTL + 1)
        with pytest.raises(NotFound):
            await catalog.resolve("a/b", "v1")
        memory.down = Unreachable("gone")
        clock.jump(NEGATIVE + 1)
        with pytest.raises(Unreachable):
            await catalog.resolve("a/b", "v1")
    async with caching(memory, tmp_path) as later:
        with pytest.raises(Unreachable):
            await later.resolve("a/b", "v1")


async def test_while_nobody_is_reached_questions_wait_for_nobody_and_a_recovery_is_seen(
    clock, memory, tmp_path: Path
) -> None:
    memory.down = Unreachable("gone")
    async with caching(memory, tmp_path) as catalog:
        for tag in ("a", "b", "c"):
            with pytest.raises(Unreachable):
                await catalog.resolve("a/b", tag)
        assert len(memory.asked) == 1
        memory.down = None
        clock.jump(120)
        assert await catalog.tags("a/b") == ("v1",)
        assert not catalog.stale


async def test_the_pause_between_questions_grows(clock, memory, tmp_path: Path) -> None:
    memory.down = Unreachable("gone")
    asked = []
    async with caching(memory, tmp_path) as catalog:
        for second in range(40):
            with pytest.raises(Unreachable):
                await catalog.resolve("a/b", "v1")
            if len(memory.asked) > len(asked):
                asked.append(second)
            clock.jump(1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses == [1, 2, 4, 8, 16]


async def test_one_question_at_a_time_for_a_name(clock, memory, tmp_path: Path) -> None:
    answers = []
    async with caching(memory, tmp_path) as catalog:

        async def ask() -> None:
            answers.append(await catalog.resolve("a/b", "v1"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
    assert len(answers) == 50
    assert len(set(answers)) == 1
    assert memory.asked == ["resolve a/b:v1"]


async def test_manifests_by_digest_are_kept_for_ever_and_by_repository(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        digest = (await catalog.resolve("a/b", "v1")).digest
        kept = await catalog.manifest("a/b", digest)
    memory.down = Unreachable("gone")
    async with caching(memory, tmp_path) as catalog:
        assert await catalog.manifest("a/b", digest) == kept
    async with caching(memory, tmp_path) as catalog:
        with pytest.raises(Unreachable):
            await catalog.manifest("another", digest)


async def test_a_manifest_that_rotted_on_disk_is_asked_for_again(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        digest = (await catalog.resolve("a/b", "v1")).digest
        kept = await catalog.manifest("a/b", digest)
    Disk(tmp_path).whole(digest).write_bytes(b"rot")
    async with caching(memory, tmp_path) as catalog:
        assert await catalog.manifest("a/b", digest) == kept


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b'{"key": "x"}', b"\xff"])
async def test_what_is_garbled_on_disk_is_not_known(
    clock, memory, tmp_path: Path, garbage: bytes
) -> None:
    async with caching(memory, tmp_path) as catalog:
        await catalog.resolve("a/b", "v1")
    for path in (tmp_path / "v1" / "names").rglob("*.json"):
        path.write_bytes(garbage)
    memory.down = Unreachable("gone")
    async with caching(memory, tmp_path) as catalog:
        with pytest.raises(Unreachable):
            await catalog.resolve("a/b", "v1")


async def test_offline_nobody_is_asked(clock, memory, tmp_path: Path) -> None:
    async with caching(memory, tmp_path) as catalog:
        known = await catalog.resolve("a/b", "v1")
    memory.asked.clear()
    async with caching(memory, tmp_path, offline=True) as catalog:
        assert await catalog.resolve("a/b", "v1") == known
        with pytest.raises(Unreachable, match="offline"):
            await catalog.resolve("a/b", "v2")
        assert await catalog.repositories() == (
            "a/b",
        )  # no list was ever had, and this one is known from its tag
        assert catalog.stale
    (tmp_path / "empty").mkdir()
    async with caching(memory, tmp_path / "empty", offline=True) as catalog:
        with pytest.raises(Unreachable, match="offline"):
            await catalog.repositories()
    assert not memory.asked


async def test_a_tag_of_which_nothing_is_known_is_one_question_and_brings_its_manifest(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        first = await catalog.tagged("a/b", "v1")
        assert await catalog.tagged("a/b", "v1") == first
        assert (await catalog.resolve("a/b", "v1")).digest == first.digest
        assert await catalog.manifest("a/b", first.digest) == first
    assert memory.asked == ["tagged a/b:v1"]


async def test_a_known_tag_is_asked_whether_it_has_moved_and_its_manifest_is_not_fetched_again(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        first = await catalog.tagged("a/b", "v1")
    memory.asked.clear()
    async with caching(memory, tmp_path) as catalog:  # another mount, with the same cache
        assert await catalog.tagged("a/b", "v1") == first
        assert memory.asked == ["resolve a/b:v1"]
        moved = Digest.parse(
            memory.put_manifest("a/b", "v1", {"layers": [], "annotations": {"a": "b"}})["digest"]
        )
        clock.jump(TTL + 1)
        assert (await catalog.tagged("a/b", "v1")).digest == moved
    assert memory.asked == ["resolve a/b:v1", "resolve a/b:v1", f"manifest {moved.short}"]


async def test_a_tag_that_is_not_there_is_not_there_for_either_question(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        for question in (catalog.tagged, catalog.resolve, catalog.tagged):
            with pytest.raises(NotFound):
                await question("a/b", "v2")
    assert memory.asked == ["tagged a/b:v2"]


async def test_a_tag_means_what_it_last_did_when_the_registry_is_gone_however_it_was_learnt(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        first = await catalog.tagged("a/b", "v1")
    memory.down = Unreachable("gone")
    async with caching(memory, tmp_path) as catalog:
        assert await catalog.tagged("a/b", "v1") == first
        assert catalog.stale


async def test_silence_is_not_waited_for_where_an_answer_is_known(
    clock, memory, tmp_path: Path
) -> None:
    async with caching(memory, tmp_path) as catalog:
        known = await catalog.resolve("a/b", "v1")
        clock.jump(TTL + 1)
        sent = trio.Event()

        async def silent(repository: str, tag: str) -> Descriptor:
            sent.set()
            await trio.sleep_forever()
            raise AssertionError

        memory.resolve = silent
        answers = []

        async def ask() -> None:
            answers.append(await catalog.resolve("a/b", "v1"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await sent.wait()  # the clock must not run while threads read the disk
            with trio.fail_after(25):
                while not answers:
                    await trio.to_thread.run_sync(lambda: None)
                    clock.jump(0.5)
    assert answers == [known]
    assert catalog.stale


async def test_a_known_name_that_is_slow_is_no_outage_for_one_of_which_nothing_is_known(
    clock, memory, tmp_path: Path
) -> None:
    """A slow registry: a known name waits for a short time, and no longer than an unknown one."""
    second = memory.put_manifest("a/b", "v2", {"layers": []})
    timing = Settings().timing
    async with caching(memory, tmp_path) as catalog:
        known = await catalog.resolve("a/b", "v1")
        clock.jump(TTL + 1)
        answer = memory.resolve

        async def slow(repository: str, tag: str) -> Descriptor:
            await trio.sleep(timing.stale_after + 1)
            return await answer(repository, tag)

        memory.resolve = slow
        answers: list[Descriptor] = []

        async def ask() -> None:
            for tag in ("v1", "v2"):  # the second one while the pause after the first would last
                answers.append(await catalog.resolve("a/b", tag))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while len(answers) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
                clock.jump(0.1)
    assert answers[0] == known
    assert str(answers[1].digest) == second["digest"]
