"""Layers are indexed once, verified and cached, and indexed again if cached files are missing.

With real caches, and sources that fail.
"""

from __future__ import annotations

import gzip
import lzma
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs import concurrency
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, Unreachable
from ocifs.layers import waiting
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.entry import LayerEntry, LayerIndex
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.tree import MergedTree
from ocifs.layers.service import LayerService
from ocifs.layers.spans.uncompressed import TAR_KIND
from ocifs.oci.digest import Digest
from ocifs.settings import CacheSettings, Limits, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from tests.layers.tars import DIRECTORY, entry, tar
from tests.store.source import Fault, MemorySource, broken

CONTENT = random.Random(1).randbytes(700_000)
TAR = tar(
    entry("d", DIRECTORY),
    entry("d/big", content=CONTENT),
    entry("d/small", content=b"small"),
    entry("empty"),
)
BLOB = gzip.compress(TAR, 1, mtime=0)
XZ = lzma.compress(TAR)  # which cannot be entered in the middle


@dataclass
class Site:
    """A layer service and the parts that it uses."""

    layer_service: LayerService
    shelf: DerivedFiles
    source: MemorySource
    nursery: trio.Nursery

    def layer(self, data: bytes = BLOB, plain: bytes | None = TAR) -> Layer:
        return Layer(self.source.put(data), None if plain is None else Digest.of(plain))

    def kept(self, layer: Layer) -> list[str]:
        return [
            kind for kind in (TAR_KIND, INDEX) if self.shelf.path(kind, layer.blob.digest).exists()
        ]


@asynccontextmanager
async def site(
    directory: Path, source: MemorySource | None = None, **limits: int
) -> AsyncIterator[Site]:
    """A layer service with a cache in a directory, for the length of the block."""
    directory.chmod(0o700)
    source = source or MemorySource()
    disk = Disk(directory)
    async with trio.open_nursery() as nursery:
        blobs = CachedBlobs(
            source, disk, nursery, Settings(cache=CacheSettings(directory=directory))
        )
        shelf = DerivedFiles(disk)
        yield Site(LayerService(blobs, shelf, nursery, Limits(**limits)), shelf, source, nursery)
        nursery.cancel_scope.cancel()
    for opened in blobs._opened.values():
        opened.retire()  # as the end of a process closes its files


def member(index: LayerIndex, path: bytes) -> LayerEntry:
    return next(member for member in index.entries if member.path == path)


async def big(here: Site, layer: Layer) -> bytes:
    found = member(await here.layer_service.index(layer), b"d/big")
    return await here.layer_service.read(layer, found, 0, found.size)


async def test_a_layer_is_streamed_once_and_read_from_what_was_kept(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        layer = here.layer()
        index = await here.layer_service.index(layer)
        assert [each.path for each in index.entries] == [b"d", b"d/big", b"d/small", b"empty"]
        assert (index.diff_id, index.plain_size, index.compression) == (
            Digest.of(TAR),
            len(TAR),
            "gzip",
        )
        found = member(index, b"d/big")
        for offset, size in (
            (0, 100),
            (699_990, 100),
            (12_345, 300_000),
            (700_000, 5),
            (800_000, 5),
        ):
            assert (
                await here.layer_service.read(layer, found, offset, size)
                == CONTENT[offset : offset + size]
            )
        assert await here.layer_service.read(layer, member(index, b"empty"), 0, 10) == b""
        assert sum(here.source.served) == len(BLOB)
        assert here.kept(layer) == [INDEX]  # a gzip is read from its blob


async def test_more_layers_than_a_bound_allows_are_not_asked_for(tmp_path: Path) -> None:
    async with site(tmp_path, layers=2) as here:
        first, second, third = (here.layer(tar(entry(name)), None) for name in "abc")
        with pytest.raises(LimitExceeded, match=r"limits\.layers"):
            await here.layer_service.tree([first, second, third])
        assert here.source.opened == []
        await here.layer_service.tree([first, second])


async def test_of_many_layers_no_more_are_fetched_at_a_time_than_are_unpacked(
    tmp_path: Path,
) -> None:
    """Each of them holds some pieces in memory."""
    async with site(tmp_path) as here:
        here.source.gate = trio.Event()
        at_a_time = max(2, os.cpu_count() or 2)
        layers = [here.layer(tar(entry(f"{number}")), None) for number in range(at_a_time + 9)]
        here.nursery.start_soon(here.layer_service.tree, layers)
        await trio.testing.wait_all_tasks_blocked(0.3)
        assert 0 < len(here.source.opened) <= at_a_time
        here.source.gate.set()
        assert len((await here.layer_service.tree(layers)).root.children or ()) == len(layers)


async def test_readers_at_the_same_time_share_one_unpacking(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        layer = here.layer()
        trees = []

        async def read() -> None:
            trees.append(await here.layer_service.tree([layer]))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
        assert all(tree is trees[0] for tree in trees)
        assert sum(here.source.served) == len(BLOB)


async def test_a_reader_who_leaves_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        layer = here.layer()
        here.source.gate = trio.Event()
        with trio.move_on_after(0.05) as left:
            await here.layer_service.index(layer)
        assert left.cancelled_caught
        here.source.gate.set()
        assert await big(here, layer) == CONTENT
        assert sum(here.source.served) == len(BLOB)


async def test_the_end_of_a_mount_ends_an_unpacking_and_leaves_nothing(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with site(tmp_path) as here:
            layer = here.layer()
            here.source.gate = trio.Event()
            here.nursery.start_soon(here.layer_service.index, layer)
            while not here.source.opened:
                await trio.lowlevel.checkpoint()
    assert here.kept(layer) == []
    assert not [path for path in (tmp_path / "v1/derived").rglob("*") if path.is_file()]


async def test_what_is_kept_lists_and_serves_without_a_question(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        first = await here.layer_service.index(here.layer())
    async with site(
        tmp_path, MemorySource(always=Fault(Unreachable("the registry is down")))
    ) as here:
        layer = here.layer()
        assert await here.layer_service.index(layer) == first
        assert await big(here, layer) == CONTENT
        assert here.source.opened == []


async def test_a_tar_that_was_evicted_is_made_again(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        layer = here.layer(XZ)
        await here.layer_service.index(layer)
        here.shelf.path(TAR_KIND, layer.blob.digest).unlink()
        assert await big(here, layer) == CONTENT
        assert here.kept(layer) == [TAR_KIND, INDEX]
    async with site(tmp_path) as here:
        here.shelf.path(TAR_KIND, layer.blob.digest).unlink()
        assert await big(here, here.layer(XZ)) == CONTENT


@pytest.mark.parametrize(
    "damage", [b"", b"{}\n", b"junk", None], ids=["empty", "other", "junk", "bit"]
)
async def test_an_index_that_was_damaged_is_made_again(
    tmp_path: Path, damage: bytes | None
) -> None:
    async with site(tmp_path) as here:
        layer = here.layer()
        first = await here.layer_service.index(layer)
    path = here.shelf.path(INDEX, layer.blob.digest)
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]) if damage is None else damage)
    async with site(tmp_path) as here:
        assert await here.layer_service.index(here.layer()) == first
    assert path.read_bytes() == kept


def cut(data: bytes) -> bytes:
    return data[:1000]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flipped])
async def test_a_tar_that_was_damaged_is_made_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    async with site(tmp_path) as here:
        layer = here.layer(XZ)
        index = await here.layer_service.index(layer)
        path = here.shelf.path(TAR_KIND, layer.blob.digest)
        path.write_bytes(damage(path.read_bytes()))
        assert (
            await here.layer_service.read(layer, member(index, b"d/big"), 300_000, 5000)
            == CONTENT[300_000:305_000]
        )
        assert await big(here, layer) == CONTENT
        assert path.read_bytes() == TAR


async def test_content_that_is_not_the_diff_ids_is_refused_and_not_kept(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        layer = here.layer(plain=b"another tar")
        with pytest.raises(IntegrityError, match="config has"):
            await here.layer_service.index(layer)
        assert here.kept(layer) == []
        right = replace(layer, diff_id=Digest.of(TAR))
        assert await big(here, right) == CONTENT
        with pytest.raises(
            IntegrityError, match="config has"
        ):  # what was kept is checked against each config
            await here.layer_service.index(layer)


@pytest.mark.parametrize(
    "compress", [bytes, lambda data: gzip.compress(data, 1, mtime=0)], ids=["plain", "gzip"]
)
async def test_the_bytes_after_the_tars_end_are_checked_like_all_others(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    more = TAR + random.Random(2).randbytes(100_000)  # it has ended before
    async with site(
        tmp_path, MemorySource(always=Fault(content=lambda data: data[:-9] + b"x" + data[-8:]))
    ) as here:
        layer = here.layer(compress(more), plain=None)
        with pytest.raises((IntegrityError, Malformed)):
            await here.layer_service.index(layer)
        assert here.kept(layer) == []
        here.source.always = Fault()
        assert await big(here, layer) == CONTENT
        with pytest.raises(IntegrityError, match="config has"):  # the diff ID is that of all of it
            await here.layer_service.index(replace(layer, diff_id=Digest.of(TAR)))
        assert (
            await here.layer_service.index(replace(layer, diff_id=Digest.of(more)))
        ).diff_id == Digest.of(more)


@pytest.mark.parametrize("data", [BLOB, TAR], ids=["gzip", "plain"])
async def test_content_that_is_not_the_digests_is_refused_and_fetched_anew(
    tmp_path: Path, data: bytes
) -> None:
    async with site(tmp_path, MemorySource(always=Fault(content=flipped))) as here:
        layer = here.layer(data)
        with pytest.raises(IntegrityError):
            await here.layer_service.index(layer)
        assert here.kept(layer) == []
        here.source.always = Fault()
        assert await big(here, layer) == CONTENT


async def test_a_lost_connection_is_an_error_and_the_next_try_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path, MemorySource(always=broken(0))) as here:
        layer = here.layer()
        with pytest.raises(Unreachable):
            await here.layer_service.index(layer)
        assert here.kept(layer) == []
        here.source.always = Fault()
        assert await big(here, layer) == CONTENT


async def test_bounds_are_kept_and_named(tmp_path: Path) -> None:
    for number, (field, value) in enumerate(
        [("layer_members", 2), ("layer_bytes", len(BLOB)), ("layer_index_bytes", 99)]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        async with site(place, **{field: value}) as here:
            layer = here.layer()
            with pytest.raises(LimitExceeded, match=field):
                await here.layer_service.index(layer)
            assert here.kept(layer) == []


async def test_one_bad_layer_fails_the_tree_with_its_own_error(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        good, bad = here.layer(), here.layer(b"no tar at all" * 100, None)
        with pytest.raises(Malformed):
            await here.layer_service.tree([good, bad, good])
        assert (await here.layer_service.tree([good, good])).root.children


async def test_an_empty_layer_is_an_empty_tree(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        for number, plain in enumerate((b"", b"\0" * 1024, b"\0" * 10240)):
            blob = gzip.compress(plain, number, mtime=0)
            assert (await here.layer_service.index(here.layer(blob, plain))).entries == ()
        nothing = await here.layer_service.tree([])
        assert nothing.root.children == {}


async def test_there_is_progress_as_long_as_layers_are_merged() -> None:
    enough = threading.Event()

    class Waiter:
        told = 0

        def waits_for(self, place: str) -> None:
            pass

        def progress(self) -> None:
            self.told += 1
            if self.told == 2:
                enough.set()

    token = concurrency._waiting.set(Waiter())
    try:
        assert await waiting.run_with_progress(lambda: enough.wait(30))
    finally:
        concurrency._waiting.reset(token)

    def refuse() -> MergedTree:
        raise LimitExceeded("too much")

    with pytest.raises(LimitExceeded):
        await waiting.run_with_progress(refuse)
