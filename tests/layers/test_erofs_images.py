"""EROFS images in the cache (layers/images.py)."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ocifs.errors import CacheFull, LimitExceeded, OcifsError
from ocifs.layers.checksummed import seal
from ocifs.layers.erofs.head import KIND
from ocifs.layers.erofs.writer import ImageOptions
from ocifs.layers.images import ErofsImage
from ocifs.store.disk import CacheDirectory
from ocifs.store.upkeep.eviction import remove
from ocifs.store.upkeep.inventory import Item, inventory
from ocifs.verbs.verify import verify_cache
from tests.layers.tars import DIRECTORY, entry, tar
from tests.layers.test_service import CONTENT, Site, site
from tests.store.source import MemorySource
from tests.store.test_failing_disk import CALLS, failing, nothing_unexpected
from tests.support.erofs import ErofsReader

UPPER = tar(entry("top", content=b"top"), entry("d", DIRECTORY, mode=0o700))
USER = ImageOptions((7, 8))


async def image_of(here: Site, options: ImageOptions = USER) -> ErofsImage:
    layers = [here.layer(), here.layer(UPPER, UPPER)]
    with trio.fail_after(60):
        return await here.layer_service.erofs_image(layers, options)


def content_of(image: ErofsImage) -> bytes:
    return os.pread(image.fileno(), image.size, 0)


def items(directory: Path) -> list[Item]:
    return [item for item in inventory(CacheDirectory(directory)) if item.kind == KIND]


async def test_an_image_leads_to_the_content_of_its_files(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        image = await image_of(here)
        layers = [here.layer(), here.layer(UPPER, UPPER)]
        found = bytearray(image.data.size)
        for address, layer, number, offset, length in image.data.pieces(0, image.data.size):
            member = image.layers[layer].entries[number]
            data = await here.layer_service.read(layers[layer], member, offset, length)
            found[address : address + length] = data
        reader = ErofsReader(content_of(image), lambda at, size: bytes(found[at : at + size]))
        inodes = dict(reader.walk())
        assert {(inode.uid, inode.gid) for inode in inodes.values()} == {(7, 8)}
        assert reader.read(inodes[b"d/big"]) == CONTENT
        assert reader.read(inodes[b"top"]) == b"top"
        image.close()


async def test_an_image_is_written_once_and_belongs_to_its_options(tmp_path: Path) -> None:
    source = MemorySource()
    found: dict[ImageOptions, ErofsImage] = {}
    async with site(tmp_path, source) as here:

        async def get(options: ImageOptions) -> None:
            found[options] = await image_of(here, options)

        async with trio.open_nursery() as nursery:
            for options in (USER, ImageOptions(None), ImageOptions((7, 8), links_inside=False)):
                nursery.start_soon(get, options)
                nursery.start_soon(get, options)
    numbers = {os.fstat(image.fileno()).st_ino for image in found.values()}
    assert len(numbers) == len(items(tmp_path)) == 3
    fetched = sum(source.served)
    async with site(tmp_path, source) as here:
        again = await image_of(here)
    assert os.fstat(again.fileno()).st_ino == os.fstat(found[USER].fileno()).st_ino
    assert (again.digest, sum(source.served)) == (found[USER].digest, fetched)
    for image in (again, *found.values()):
        image.close()


async def test_an_open_image_is_not_evicted_and_never_changed(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        image = await image_of(here)
        before = content_of(image)
        [item] = items(tmp_path)
        assert Path(image.path) == item.paths[0]
        assert not remove(item)
        # A damaged image is replaced by another file.
        path = item.paths[0]
        path.unlink()
        path.write_bytes(before[:-1])
        other = await image_of(here)
        assert os.fstat(other.fileno()).st_ino != os.fstat(image.fileno()).st_ino
        assert content_of(image) == before == content_of(other)
        other.close()
        assert remove(items(tmp_path)[0])
        image.close()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda data: data[:2000] + bytes([data[2000] ^ 4]) + data[2001:],
    "a bit of the head": lambda data: data[:80] + bytes([data[80] ^ 4]) + data[81:],
    "the end": lambda data: data[:-1],
    "more": lambda data: data + b"x",
    "empty": lambda data: b"",
    "of another kind": lambda data: seal({"kind": "layer-tree.3"}, data),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_image_is_written_again(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as here:
        image = await image_of(here)
        good = content_of(image)
        image.close()
        [item] = items(tmp_path)
        data = item.paths[0].read_bytes()
        item.paths[0].write_bytes(damage(data))
        with caplog.at_level(logging.WARNING):
            image = await image_of(here)
        assert "damaged" in caplog.text
        assert content_of(image) == good
        assert item.paths[0].read_bytes() == data
        image.close()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_cache_verify_finds_a_damaged_image(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    async with site(tmp_path) as here:
        (await image_of(here)).close()
    assert not verify_cache(tmp_path).wrong
    [item] = items(tmp_path)
    item.paths[0].write_bytes(damage(item.paths[0].read_bytes()))
    assert [wrong.kind for wrong, _ in verify_cache(tmp_path).wrong] == [KIND]
    assert not items(tmp_path)


async def test_an_image_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.tree([here.layer(), here.layer(UPPER, UPPER)])
        with failing(tmp_path / "v1" / "derived" / KIND, ("write",), errno.ENOSPC):
            with pytest.raises(CacheFull):
                await image_of(here)
        (await image_of(here)).close()
    async with site(tmp_path, erofs_bytes=4095) as here:
        with pytest.raises(LimitExceeded, match="erofs_bytes"):
            await image_of(here, ImageOptions(None))


@pytest.mark.parametrize("times", [1, -1], ids=["once", "always"])
@pytest.mark.parametrize(
    ("call", "name"),
    [*((call, "EIO") for call in CALLS), ("write", "EIO"), ("write", "ENOSPC"), ("open", "EMFILE")],
)
async def test_a_disk_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, name: str, times: int
) -> None:
    """An image, or an error; and an image when the disk works again."""
    async with site(tmp_path) as here:
        with failing(tmp_path / "v1" / "derived", (call,), getattr(errno, name), times):
            try:
                (await image_of(here)).close()
            except OcifsError as error:
                assert times < 0 or call not in ("utime", "flock"), error
        image = await image_of(here)
        ErofsReader(content_of(image)).inode(40)
        image.close()
    nothing_unexpected(caplog)
