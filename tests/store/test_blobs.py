"""Verified, shared, cached reads over sources that fail."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.content import Blob
from ocifs.errors import IntegrityError, NotFound, OcifsError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import CacheSettings, Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.blobs.open_blob import LEFT
from ocifs.store.disk import Disk
from tests.store.source import Fault, MemorySource, broken

SIZE = 9 * BLOCK + 1234
CONTENT = random.Random(1).randbytes(SIZE)
OTHER = random.Random(2).randbytes(SIZE)


@asynccontextmanager
async def caching(
    source: MemorySource,
    directory: Path,
    *,
    verify_full: bool = False,
    report: Callable[[str], None] | None = None,
) -> AsyncIterator[CachedBlobs]:
    """A cache in a directory. Its tasks end with the block."""
    directory.chmod(0o700)
    chosen = Settings(cache=CacheSettings(directory=directory, verify_full=verify_full))
    async with trio.open_nursery() as nursery:
        blobs = CachedBlobs(source, Disk(directory, report=report), nursery, chosen)
        yield blobs
        nursery.cancel_scope.cancel()
    for opened in blobs._opened.values():
        opened.retire()  # as the end of a process closes its files


async def placed(directory: Path, blob: Blob) -> None:
    """Wait until a verified blob is at its final path."""
    with trio.fail_after(10):
        while not Disk(directory).whole(blob.digest).exists():
            await trio.lowlevel.checkpoint()


async def whole(blobs: CachedBlobs, blob: Blob) -> bytes:
    return await blobs.read_blob(blob, 0, blob.size)


async def test_a_read_is_the_content_and_each_block_comes_once(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        for offset in (5 * BLOCK + 7, 0, SIZE - 10, 3, 2 * BLOCK):
            assert await blobs.read_blob(blob, offset, 5000) == CONTENT[offset : offset + 5000]
        assert await whole(blobs, blob) == CONTENT
        assert await whole(blobs, blob) == CONTENT
    assert sum(source.served) == SIZE


async def test_a_read_past_the_end_is_short_and_one_behind_it_empty(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, SIZE - 5, 100) == CONTENT[-5:]
        assert await blobs.read_blob(blob, SIZE, 100) == b""
        assert await blobs.read_blob(blob, SIZE + 100, 100) == b""


async def test_a_small_read_fetches_little(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT * 8)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 7 * BLOCK, 10)
    assert sum(source.served) <= 4 * BLOCK


async def test_who_says_how_far_it_reads_costs_one_request(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT * 8)
    async with caching(source, tmp_path) as blobs:
        for offset in range(0, blob.size, BLOCK):
            assert (
                await blobs.read_blob(blob, offset, BLOCK, blob.size)
                == (CONTENT * 8)[offset : offset + BLOCK]
            )
    assert source.opened == [(0, blob.size)]


async def test_content_that_the_descriptor_carries_is_asked_of_nobody(tmp_path: Path) -> None:
    source = MemorySource()
    blob = Blob("repository", Digest.of(b"small"), 5, b"small")
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 1, 3) == b"mal"
    assert not source.opened


async def test_sixty_four_readers_at_once_cost_one_fetch_of_each_byte(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    answers = []

    async def read(offset: int) -> None:
        answers.append(
            await blobs.read_blob(blob, offset, 3 * BLOCK) == CONTENT[offset : offset + 3 * BLOCK]
        )

    async with caching(source, tmp_path) as blobs:
        async with trio.open_nursery() as readers:
            for number in range(64):
                readers.start_soon(read, number * 7919 % SIZE)
    assert answers == [True] * 64
    assert sum(source.served) <= SIZE


async def test_a_reader_who_leaves_takes_nothing_from_the_others(tmp_path: Path) -> None:
    source = MemorySource(gate=trio.Event())
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        async with trio.open_nursery() as readers:
            first = trio.CancelScope()

            async def leave() -> None:
                with first:
                    await blobs.read_blob(blob, 0, 10)

            readers.start_soon(leave)
            while not source.opened:
                await trio.lowlevel.checkpoint()
            first.cancel()
            assert source.gate is not None
            source.gate.set()
            assert await blobs.read_blob(blob, 0, 10) == CONTENT[:10]
    assert len(source.opened) == 1


async def test_another_session_fetches_nothing_of_what_is_here(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 0, 2 * BLOCK)
    fetched = sum(source.served)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 0, 2 * BLOCK) == CONTENT[: 2 * BLOCK]
        assert sum(source.served) == fetched
        assert await whole(blobs, blob) == CONTENT
        await placed(tmp_path, blob)
    source.opened.clear()
    async with caching(source, tmp_path) as blobs:
        assert await blobs.blob_size("repository", blob.digest) == SIZE
        assert await whole(blobs, blob) == CONTENT
    assert not source.opened
    assert sum(source.served) == SIZE


async def test_two_sessions_at_once_on_one_directory_read_the_content(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as one, caching(source, tmp_path) as two:
        assert await one.read_blob(blob, 0, 4 * BLOCK) == CONTENT[: 4 * BLOCK]
        assert await whole(two, blob) == CONTENT
        assert await whole(one, blob) == CONTENT
    assert sum(source.served) == SIZE


@pytest.mark.parametrize("verify_full", [False, True])
async def test_what_a_crash_left_garbled_is_fetched_again_and_never_served(
    tmp_path: Path, verify_full: bool
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 0, 6 * BLOCK)
    with Disk(tmp_path).partial(blob.digest).open("r+b") as file:
        file.seek(3 * BLOCK + 100)
        file.write(bytes(500))
    async with caching(source, tmp_path, verify_full=verify_full) as blobs:
        assert await blobs.read_blob(blob, 3 * BLOCK, BLOCK) == CONTENT[3 * BLOCK : 4 * BLOCK]
        assert await whole(blobs, blob) == CONTENT


async def test_a_garbled_block_elsewhere_does_not_fail_the_read_that_completes_the_blob(
    tmp_path: Path,
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 0, 9 * BLOCK)
    with Disk(tmp_path).partial(blob.digest).open("r+b") as file:
        file.seek(3 * BLOCK + 100)
        file.write(bytes(500))
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 9 * BLOCK, BLOCK) == CONTENT[9 * BLOCK :]
        assert await whole(blobs, blob) == CONTENT


async def test_a_map_that_is_garbage_is_not_believed(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 0, 6 * BLOCK)
    path = Disk(tmp_path).partial(blob.digest)
    path.with_name(path.name + ".map").write_bytes(b"\xff" * 96)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT


async def test_a_source_that_ignores_the_range_is_read_all_the_same(tmp_path: Path) -> None:
    source = MemorySource(always=Fault(from_zero=True))
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await blobs.read_blob(blob, 5 * BLOCK, 100) == CONTENT[5 * BLOCK : 5 * BLOCK + 100]
        assert await whole(blobs, blob) == CONTENT


@pytest.mark.parametrize("after", [1, BLOCK, 3 * BLOCK + 5])
async def test_a_lost_connection_is_gone_on_from_where_it_was_lost(
    tmp_path: Path, after: int
) -> None:
    source = MemorySource()
    source.faults.append(broken(after))
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    assert source.opened == [(0, SIZE), (after // BLOCK * BLOCK, SIZE)]


async def test_a_fetch_resumes_after_each_lost_connection_that_brought_a_block(
    tmp_path: Path,
) -> None:
    source = MemorySource(always=broken(BLOCK))
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    assert sum(source.served) == SIZE


async def test_a_stream_that_ends_short_in_silence_is_gone_on_from(tmp_path: Path) -> None:
    source = MemorySource(always=Fault(after=2 * BLOCK + 7))
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT


async def test_a_source_that_stays_lost_is_unreachable_and_is_asked_a_bounded_number_of_times(
    tmp_path: Path,
) -> None:
    source = MemorySource(always=broken(0))
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        with pytest.raises(Unreachable):
            await whole(blobs, blob)
    assert 1 < len(source.opened) < 10


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(after=0), IntegrityError),
        (Fault(extra=b"more"), IntegrityError),
        (Fault(total=lambda size: size + 1), IntegrityError),
        (Fault(total=lambda size: size - 1), IntegrityError),
        (Fault(NotFound("gone")), NotFound),
        (Fault(NotFound("gone"), BLOCK), NotFound),
        (Fault(content=lambda data: OTHER), IntegrityError),
    ],
    ids=["empty", "too long", "total more", "total less", "absent", "absent midway", "other bytes"],
)
async def test_a_stream_that_lies_is_an_error_and_the_next_read_begins_anew(
    tmp_path: Path, fault: Fault, kind: type[OcifsError]
) -> None:
    source = MemorySource(always=fault)
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        for _ in range(2):
            with pytest.raises(kind):
                await whole(blobs, blob)
        source.always = Fault()
        assert await whole(blobs, blob) == CONTENT


async def test_of_other_content_never_all_is_served(tmp_path: Path) -> None:
    source = MemorySource(always=Fault(content=lambda data: OTHER))
    blob = source.put(CONTENT)
    served = 0
    async with caching(source, tmp_path) as blobs:
        with pytest.raises(IntegrityError):
            for offset in range(0, SIZE, 10_000):
                served += len(await blobs.read_blob(blob, offset, 10_000))
        assert served < SIZE
        assert not Disk(tmp_path).whole(blob.digest).exists()
        assert not Disk(tmp_path).partial(blob.digest).exists()


@pytest.mark.parametrize("offset", [0, 4 * BLOCK, SIZE - 1])
async def test_with_full_verification_nothing_of_other_content_is_served(
    tmp_path: Path, offset: int
) -> None:
    source = MemorySource(always=Fault(content=lambda data: OTHER))
    blob = source.put(CONTENT)
    async with caching(source, tmp_path, verify_full=True) as blobs:
        with pytest.raises(IntegrityError):
            await blobs.read_blob(blob, offset, 1)
        source.always = Fault()
        assert await blobs.read_blob(blob, offset, 1) == CONTENT[offset : offset + 1]


async def test_many_readers_of_other_content_all_get_the_error(tmp_path: Path) -> None:
    source = MemorySource(always=Fault(content=lambda data: OTHER, from_zero=True))
    blob = source.put(CONTENT)
    failed = []

    async def read(offset: int) -> None:
        try:
            await blobs.read_blob(blob, offset, SIZE)
        except IntegrityError:
            failed.append(offset)

    async with caching(source, tmp_path, verify_full=True) as blobs:
        async with trio.open_nursery() as readers:
            for number in range(16):
                readers.start_soon(read, number * BLOCK // 2)
        assert len(failed) == 16
        source.always = Fault()
        assert await whole(blobs, blob) == CONTENT


@pytest.mark.parametrize("claimed", [SIZE - BLOCK, SIZE + 5 * BLOCK, SIZE + 1])
async def test_a_descriptor_with_another_size_is_an_integrity_error(
    tmp_path: Path, claimed: int
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    liar = replace(blob, size=claimed)
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(blob, 0, 10)
        with pytest.raises(IntegrityError):
            await blobs.read_blob(liar, claimed - 10, 10)
        assert await whole(blobs, blob) == CONTENT
        with pytest.raises(IntegrityError):
            await blobs.read_blob(liar, 0, 10)
    async with caching(source, tmp_path) as blobs:
        with pytest.raises(IntegrityError):
            await blobs.read_blob(liar, 0, 10)


@settings(max_examples=25, deadline=None)
@given(
    reads=st.lists(
        st.tuples(st.integers(0, SIZE + 10), st.integers(0, 4 * BLOCK)), min_size=1, max_size=8
    ),
    faults=st.lists(st.sampled_from([0, 1, BLOCK - 1, BLOCK, 100_000]), max_size=2),
    piece=st.sampled_from([1000, BLOCK, 3 * BLOCK + 1]),
    at_once=st.booleans(),
)
def test_any_reads_over_lost_connections_are_the_content(
    reads: list[tuple[int, int]], faults: list[int], piece: int, at_once: bool
) -> None:
    async def run(directory: Path) -> None:
        source = MemorySource(piece=piece)
        source.faults.extend(broken(after) for after in faults)
        blob = source.put(CONTENT)

        async def read(offset: int, length: int) -> None:
            assert await blobs.read_blob(blob, offset, length) == CONTENT[offset : offset + length]

        async with caching(source, directory) as blobs:
            async with trio.open_nursery() as readers:
                for offset, length in reads:
                    if at_once:
                        readers.start_soon(read, offset, length)
                    else:
                        await read(offset, length)

    with tempfile.TemporaryDirectory() as directory:
        trio.run(run, Path(directory))


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    from ocifs.errors import UsageError

    for mode in (0o770, 0o702):
        tmp_path.chmod(mode)
        with pytest.raises(UsageError, match="other users can write"):
            Disk(tmp_path)
    tmp_path.chmod(0o700)
    Disk(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    from ocifs.errors import UsageError

    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot create"):
        Disk(tmp_path / "file" / "cache")


async def read_and_leave(blobs: CachedBlobs, blob: Blob) -> None:
    """Wait for bytes that do not arrive, and leave when a fetch has started."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blobs.read_blob, blob, 0, 10)
        while blob.digest not in blobs._opened._blobs or not any(
            fetch._waiters for fetch in blobs._opened._blobs[blob.digest].fetches
        ):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_fetch_ends_when_its_last_reader_has_left(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    source = MemorySource(gate=trio.Event())
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        for _ in range(3):
            await read_and_leave(blobs, blob)
            mock_clock.jump(LEFT / 2)
        opened = blobs._opened._blobs[blob.digest]
        assert len(source.opened) == 1  # each reader joined it, since the one before had just left
        assert len(opened.fetches) == 1
        mock_clock.jump(LEFT)
        while opened.fetches:
            await trio.lowlevel.checkpoint()
        assert source.gate is not None
        source.gate.set()
        assert await whole(blobs, blob) == CONTENT


async def test_a_fetch_goes_on_while_a_reader_waits_for_it(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    source = MemorySource(gate=trio.Event())
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs, trio.open_nursery() as nursery:
        nursery.start_soon(blobs.read_blob, blob, 0, 10)
        while not source.opened:
            await trio.lowlevel.checkpoint()
        mock_clock.jump(10 * LEFT)
        await trio.testing.wait_all_tasks_blocked()
        assert len(blobs._opened._blobs[blob.digest].fetches) == 1
        assert len(source.opened) == 1
        assert source.gate is not None
        source.gate.set()
