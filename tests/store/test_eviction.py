"""The items that are evicted when the cache exceeds its bounds, and those that stay."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.errors import UsageError
from ocifs.oci.digest import Digest
from ocifs.settings import KIB, MIB, CacheSettings, Settings
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.store.upkeep.eviction import Bounds, bounds, evict, free_space, remove
from ocifs.store.upkeep.housekeeper import Housekeeper, IdleCloser
from ocifs.store.upkeep.inventory import LEFTOVER, NAME, PARTIAL, inventory
from ocifs.store.upkeep.pins import Pin, pins, put_pin, remove_pin
from tests.store.source import MemorySource

LARGE = 256 * KIB


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    tmp_path.chmod(0o700)
    return Disk(tmp_path)


def put(disk: Disk, used: float, size: int = LARGE, seed: int = 0) -> Digest:
    """Store a whole blob with a time of use."""
    content = random.Random(f"{used} {seed}").randbytes(size)
    digest = Digest.of(content)
    disk.write(disk.whole(digest), content)
    os.utime(disk.whole(digest), (used, used))
    return digest


def left(disk: Disk) -> set[Digest]:
    return {item.digest for item in inventory(disk) if item.digest is not None}


def limit(size: int) -> Bounds:
    return Bounds(size, 0)


def test_what_was_used_longest_ago_goes_first_and_no_more_than_must(disk: Disk) -> None:
    old, middle, new = (put(disk, used) for used in (100, 200, 300))
    report = evict(disk, limit(2 * LARGE), exactly=True)
    assert report is not None
    assert (report.size, report.freed, report.over) == (2 * LARGE, LARGE, 0)
    assert left(disk) == {middle, new}
    os.utime(disk.whole(middle))
    evict(disk, limit(LARGE), exactly=True)
    assert left(disk) == {middle}
    assert old not in left(disk)


def test_within_the_bounds_nothing_goes(disk: Disk) -> None:
    put(disk, 100)
    report = evict(disk, limit(LARGE))
    assert report is not None
    assert not report.evicted


@settings(deadline=None, max_examples=30)
@given(
    things=st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 100)),
        max_size=12,
        unique_by=lambda each: each[1],
    ),
    size=st.integers(0, 40),
    exactly=st.booleans(),
)
def test_whatever_there_is_the_bound_is_kept_and_the_newest_stay(
    tmp_path_factory: pytest.TempPathFactory,
    things: list[tuple[int, int]],
    size: int,
    exactly: bool,
) -> None:
    disk = Disk(tmp_path_factory.mktemp("cache"))
    made = [(used, put(disk, used + 1, blocks * 128 * KIB)) for blocks, used in things]
    evict(disk, limit(size * 128 * KIB), exactly=exactly)
    assert sum(item.size for item in inventory(disk)) <= size * 128 * KIB
    stayed = [digest for _, digest in sorted(made) if digest in left(disk)]
    assert stayed == [digest for _, digest in sorted(made)][len(made) - len(stayed) :]


def test_space_that_others_take_is_freed(disk: Disk) -> None:
    old, new = put(disk, 100, 8 * MIB), put(disk, 200, 8 * MIB)
    for _ in range(100):  # others may free more of the disk meanwhile than is wanted here
        report = evict(disk, Bounds(1 << 60, free_space(disk) + MIB), exactly=True)
        assert report is not None
        if report.evicted:
            break
    assert old not in left(disk)
    assert report.evicted[0].digest == old
    assert (
        new not in left(disk) or len(report.evicted) == 1
    )  # others may have filled the disk meanwhile


def test_what_another_process_has_open_stays(disk: Disk) -> None:
    digest = put(disk, 100)
    held = put(disk, 50)
    script = """if True:
        import os, sys
        from pathlib import Path
        from ocifs.oci.digest import Digest
        from ocifs.store.disk import Disk, lock_shared, open_regular
        path = Disk(Path(sys.argv[1])).whole(Digest.parse(sys.argv[2]))
        lock_shared(open_regular(path, os.O_RDONLY))
        print("open", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", script, str(disk.root.parent), str(held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        report = evict(disk, limit(0))
        assert report is not None
        assert report.over > 0
        assert left(disk) == {held}
        assert digest not in left(disk)
        other.stdin.close()
    evict(disk, limit(0))
    assert not left(disk)


def test_without_a_free_descriptor_nothing_is_evicted(disk: Disk) -> None:
    digest = put(disk, LARGE)
    [item] = inventory(disk)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.dup(0)
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor, hard))
    try:
        assert not remove(item)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert left(disk) == {digest}
    assert remove(item)


def test_what_is_pinned_stays_and_what_was_made_from_it(disk: Disk) -> None:
    pinned, other = put(disk, 100), put(disk, 200)
    derived = DerivedFiles(disk)
    for digest in (pinned, other):
        with derived.put("layer-plain.1", digest) as file:
            file.write(b"x" * LARGE)
    name = disk.name("host", Digest.of(b"key"))
    disk.write(name, b"{}")
    put_pin(disk, Pin("host/app:v1", frozenset({pinned}), frozenset({"/".join(name.parts[-2:])})))
    evict(disk, limit(0))
    assert {(item.kind, item.digest) for item in inventory(disk)} == {
        ("whole", pinned),
        ("layer-plain.1", pinned),
        (NAME, None),
    }
    assert remove_pin(disk, "host/app:v1")
    assert not remove_pin(disk, "host/app:v1")
    evict(disk, limit(0))
    assert not inventory(disk)


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b'{"what": 1, "digests": ["x"]}', b"\xff", b"[" * 100_000]
)
def test_a_pin_that_is_garbled_pins_nothing(disk: Disk, garbage: bytes) -> None:
    put_pin(disk, Pin("good", frozenset({Digest.of(b"")})))
    (disk.root / "pins" / "bad.json").write_bytes(garbage)
    assert [pin.what for pin in pins(disk)] == ["good"]


def test_manifests_indices_and_names_go_after_everything_else(disk: Disk) -> None:
    manifest = put(disk, 1, 1000)
    index = Digest.of(b"layer")
    with DerivedFiles(disk).put("layer-index.1", index) as file:
        file.write(b"x" * LARGE)
    disk.write(disk.name("host", index), b"{}")
    blob = put(disk, 2)
    evict(disk, limit(LARGE + 64 * KIB), exactly=True)
    assert blob not in left(disk)
    assert {manifest, index} <= left(disk)
    evict(disk, limit(0))
    assert not inventory(disk)


def test_a_sparse_blob_counts_as_what_it_holds_and_goes_with_its_map(disk: Disk) -> None:
    digest = Digest.of(b"never whole")
    partial = BlobBlocks(disk, digest, 1000 * BLOCK)
    partial.write(BLOCK, [b"x" * BLOCK])
    (item,) = inventory(disk)
    assert item.kind == PARTIAL
    assert BLOCK <= item.size <= 3 * BLOCK
    assert item.length == 1000 * BLOCK
    evict(disk, limit(0))
    assert left(disk) == {digest}  # it is being written
    partial.close()
    evict(disk, limit(0))
    assert not [path for path in disk.root.rglob("*") if path.is_file() and path.name != "lock"]


def test_who_opens_a_blob_while_it_is_evicted_begins_anew(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(b"content")
    BlobBlocks(disk, digest, BLOCK).close()
    lock = fcntl.flock

    def evict_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        evict(disk, limit(0))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", evict_first)
    partial = BlobBlocks(disk, digest, BLOCK)
    assert disk.partial(digest).exists()
    other = BlobBlocks(disk, digest, BLOCK)  # as another process would: it must find the same files
    assert (
        disk.partial(digest).stat().st_ino
        == os.fstat(partial.fd).st_ino
        == os.fstat(other.fd).st_ino
    )
    partial.write(0, [b"content" * (BLOCK // 7) + b"co"])
    assert other.has(0)
    partial.close()
    other.close()


def test_leftovers_of_dead_processes_go_and_those_of_the_living_stay(disk: Disk) -> None:
    digest = Digest.of(b"content")
    living = BlobBlocks(disk, digest, BLOCK)
    dead = disk.partial(digest).with_name(f"{digest.encoded}.999999999.private")
    for path in (dead, dead.with_name(f"{dead.name}.map"), disk.root / "blobs" / ".tmp-x"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for item in inventory(disk):
        for path in item.paths:
            os.utime(path, (100, 100))
    assert len([item for item in inventory(disk) if item.kind == LEFTOVER]) == 2
    evict(disk, limit(1 << 60))
    assert [item.digest for item in inventory(disk)] == [digest]
    living.close()


def test_one_process_evicts_at_a_time(disk: Disk) -> None:
    put(disk, 100)
    with (disk.root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert evict(disk, limit(0), wait=0) is None
    assert left(disk)
    assert evict(disk, limit(0), wait=0) is not None


def test_without_settings_the_bounds_are_shares_of_the_disk(disk: Disk) -> None:
    found = os.statvfs(disk.root)
    whole = found.f_blocks * found.f_frsize
    made = bounds(disk, CacheSettings())
    assert made == Bounds(min(10 << 30, whole // 10), min(1 << 30, whole // 20))
    assert bounds(disk, CacheSettings(size=0, free_space=5)) == Bounds(0, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("inner", [False, True])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, inner: bool) -> None:
    Disk(tmp_path)
    os.chown(tmp_path / "v1" if inner else tmp_path, 12345, -1)
    with pytest.raises(UsageError, match="another user"):
        Disk(tmp_path)


@asynccontextmanager
async def kept(
    source: MemorySource, disk: Disk, size: int
) -> AsyncIterator[tuple[CachedBlobs, Housekeeper]]:
    """A cache with its housekeeper."""
    chosen = CacheSettings(directory=disk.root.parent, size=size, free_space=0)
    async with trio.open_nursery() as nursery:
        closers: list[IdleCloser] = []
        housekeeper = Housekeeper(disk, chosen, closers)
        kept_disk = Disk(disk.root.parent, housekeeper)
        blobs = CachedBlobs(source, kept_disk, nursery, Settings(cache=chosen))
        closers.append(blobs)
        nursery.start_soon(housekeeper.run)
        yield blobs, housekeeper
        nursery.cancel_scope.cancel()
    blobs.close_idle(0)


async def until(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


async def test_bytes_that_come_in_push_old_ones_out_and_nothing_read_is_wrong(disk: Disk) -> None:
    source = MemorySource(piece=512 * KIB)
    contents = [random.Random(n).randbytes(MIB) for n in range(24)]
    blobs_of = [source.put(content) for content in contents]
    async with kept(source, disk, 6 * MIB) as (blobs, _):
        for content, blob in zip(contents, blobs_of, strict=True):
            assert await blobs.read_blob(blob, 0, blob.size) == content
        await until(lambda: sum(item.size for item in inventory(disk)) <= 8 * MIB)
        for content, blob in zip(contents, blobs_of, strict=True):
            assert await blobs.read_blob(blob, 0, blob.size) == content


async def test_what_a_program_has_open_stays_however_long_it_does_not_read(disk: Disk) -> None:
    source = MemorySource()
    blob, other = source.put(b"a" * LARGE), source.put(b"b" * LARGE)
    async with kept(source, disk, 1 << 40) as (blobs, _):
        blobs.acquire(blob.digest)
        for each in (blob, other):
            await blobs.read_blob(each, 0, each.size)
        await until(lambda: disk.whole(blob.digest).exists() and disk.whole(other.digest).exists())
        await until(lambda: all(opened.idle for opened in blobs._opened.values()))
        blobs.close_idle(0)
        evict(disk, limit(0))
        assert left(disk) == {blob.digest}
        blobs.release(blob.digest)
        blobs.close_idle(0)
        evict(disk, limit(0))
        assert not left(disk)


async def test_that_something_is_used_is_noted_for_other_processes(disk: Disk) -> None:
    source = MemorySource()
    blob = source.put(b"a" * LARGE)
    async with kept(source, disk, 1 << 40) as (blobs, _):
        await blobs.read_blob(blob, 0, blob.size)
        await until(lambda: disk.whole(blob.digest).exists())
        os.utime(disk.whole(blob.digest), (100, 100))
        await blobs.read_blob(blob, 0, 10)
        blobs.close_idle(60)
        assert disk.whole(blob.digest).stat().st_mtime > 100
        os.utime(disk.whole(blob.digest), (100, 100))
        blobs.close_idle(60)  # it was not read since
        assert disk.whole(blob.digest).stat().st_mtime == 100
