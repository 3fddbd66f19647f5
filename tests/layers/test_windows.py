"""The checkpoints of a large gzip layer: in a file of the cache, not in memory."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.indexing.window_log import IN_MEMORY
from ocifs.layers.spans.windows import WINDOWS_KIND
from ocifs.settings import MIB
from ocifs.verbs.verify import verify_cache
from tests.layers.tars import entry, tar
from tests.layers.test_service import Site, member, site
from tests.store.source import MemorySource

DICE = random.Random(5)
FILES = {b"%d" % number: DICE.randbytes(MIB).hex().encode() for number in range(15)}


@cache
def layer() -> tuple[bytes, bytes]:
    """A gzip blob of 30 MiB of hexadecimal digits, and its tar."""
    plain = tar(*[entry(name.decode(), content=content) for name, content in FILES.items()])
    return gzip.compress(plain, 1, mtime=0), plain


async def check_files(here: Site) -> LayerIndex:
    """Read every file, last one first."""
    each = here.layer(*layer())
    index = await here.layer_service.index(each)
    for name, content in reversed(FILES.items()):
        found = member(index, name)
        assert await here.layer_service.read(each, found, 0, found.size) == content
    return await here.layer_service.index(each)


def in_memory(index: LayerIndex) -> int:
    assert index.spans is not None
    windows = [span.window for span in index.spans if span.window is not None]
    return sum(len(window.data) for window in windows if isinstance(window.data, bytes))


def stored(directory: Path) -> Path:
    [path] = (directory / "v1/derived" / WINDOWS_KIND / "sha256").iterdir()
    return path


async def test_the_checkpoints_of_a_large_layer_are_on_disk(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        index = await check_files(here)
        assert in_memory(index) <= IN_MEMORY + 64 * 1024
    assert stored(tmp_path).stat().st_size > IN_MEMORY / 4
    async with site(tmp_path) as here:
        again = await check_files(here)
        assert in_memory(again) <= IN_MEMORY + 64 * 1024
        assert again == index


async def test_the_layer_is_not_read_as_a_whole_again(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(*layer()))
    source = MemorySource()
    async with site(tmp_path, source) as here:
        index = await here.layer_service.index(here.layer(*layer()))
        assert len(index.entries) == len(FILES)
        assert not source.opened


def remove(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 0x55 for byte in path.read_bytes()))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [remove, flip, truncate])
async def test_damaged_checkpoints_are_created_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(*layer()))
    good = stored(tmp_path).read_bytes()
    damage(stored(tmp_path))
    async with site(tmp_path) as here:
        await check_files(here)
    assert stored(tmp_path).read_bytes() == good


async def test_checkpoints_that_are_damaged_while_they_are_in_use_are_created_again(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(*layer()))
        flip(stored(tmp_path))
        await check_files(here)


async def test_a_disk_without_room_for_checkpoints_costs_memory_alone(tmp_path: Path) -> None:
    place = tmp_path / "v1/derived" / WINDOWS_KIND
    async with site(tmp_path) as here:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("a file in place of the directory")
        index = await check_files(here)
        assert in_memory(index) > IN_MEMORY
    async with site(tmp_path) as here:
        assert await check_files(here) == index


async def test_checkpoints_are_verified_with_the_cache(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(*layer()))
        await check_files(here)
    assert not verify_cache(tmp_path).wrong
    flip(stored(tmp_path))
    [(item, _)] = verify_cache(tmp_path).wrong
    assert item.kind == WINDOWS_KIND
    assert (tmp_path / "v1/derived" / INDEX).exists()
