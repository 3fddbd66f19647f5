"""Lazy layers in a layer service: listed by their tables, read by chunks, or as ordinary tars."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.errors import IntegrityError, Unreachable
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.service import LayerService
from ocifs.layers.toc import estargz
from ocifs.oci.digest import Digest
from ocifs.settings import CacheSettings, Limits, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from tests.layers.tables import Contents, Made, chunked, chunked_by_nerdctl, starred, zipped, zstd
from tests.layers.test_service import Site, member, site
from tests.store.source import Fault, MemorySource

FORMS: list[tuple[Callable[[bytes], bytes], Callable[..., Made]]] = [
    (zipped, starred),
    (zstd, chunked),
    (zstd, chunked_by_nerdctl),
]
every = pytest.mark.parametrize(
    ("compress", "make"), FORMS, ids=["estargz", "zstd:chunked", "zstd:chunked by nerdctl"]
)
DICE = random.Random(9)
FIRST, SECOND, THIRD = (DICE.randbytes(600_000) for _ in range(3))


def contents(compress: Callable[[bytes], bytes], landmark: bool = False) -> Contents:
    made = Contents(compress)
    made.put("d/", type="dir", mode=0o755)
    made.put("d/small", b"small")
    if landmark:
        made.put(".prefetch.landmark", b"\x0f")
    made.put("d/big", FIRST, SECOND, THIRD)
    made.put("d/other", DICE.randbytes(900_000))
    return made


def layer(here: Site, made: Made) -> Layer:
    return here.layer_service.layer(here.source.put(made.blob), None, made.annotations)


def names(index: LayerIndex) -> list[bytes]:
    return [each.path for each in index.entries]


async def read(
    here: Site, which: Layer, path: bytes = b"d/big", offset: int = 0, size: int = 1 << 30
) -> bytes:
    found = member(await here.layer_service.index(which), path)
    return await here.layer_service.read(which, found, offset, size)


@every
async def test_it_is_listed_by_its_table_and_read_by_its_chunks(
    tmp_path: Path, compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    made = make(contents(compress))
    async with site(tmp_path) as here:
        which = layer(here, made)
        index = await here.layer_service.index(which)
        assert names(index) == [b"d", b"d/small", b"d/big", b"d/other"]
        listed = sum(here.source.served)
        assert listed < 300_000 < len(made.blob)
        assert await read(here, which, offset=700_000, size=100) == SECOND[100_000:100_100]
        assert sum(here.source.served) - listed < 1_200_000
        assert await read(here, which, offset=1_199_990, size=30) == SECOND[-10:] + THIRD[:20]
        assert await read(here, which) == FIRST + SECOND + THIRD


@every
async def test_files_that_share_a_member_are_read(
    tmp_path: Path, compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    files = {f"f{number}": DICE.randbytes(1000 * number) for number in range(1, 40)}
    made = Contents(compress)
    made.put_together(**files)
    made.put("big", FIRST, SECOND)
    whole = make(made)
    async with site(tmp_path) as here:
        await here.layer_service.index(layer(here, whole))
    async with site(tmp_path) as here:
        assert await read(here, layer(here, whole), b"big", 600_000, 5) == SECOND[:5]
        for name in (*reversed(files), *files):
            assert await read(here, layer(here, whole), name.encode()) == files[name]


@every
async def test_a_kept_table_lists_without_a_question(
    tmp_path: Path, compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    made = make(contents(compress))
    async with site(tmp_path) as here:
        first = await here.layer_service.index(layer(here, made))
        assert await read(here, layer(here, made), b"d/small") == b"small"
    async with site(
        tmp_path, MemorySource(always=Fault(Unreachable("the registry is down")))
    ) as here:
        index = await here.layer_service.index(layer(here, made))
        assert (list(index.entries), index.compression) == (list(first.entries), first.compression)
        assert await read(here, layer(here, made), b"d/small") == b"small"


@every
async def test_an_outage_is_no_refusal(
    tmp_path: Path, compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    async with site(
        tmp_path, MemorySource(always=Fault(Unreachable("the registry is down")))
    ) as here:
        which = layer(here, make(contents(compress)))
        with pytest.raises(Unreachable):
            await here.layer_service.index(which)
        here.source.always = Fault()
        assert (await here.layer_service.index(which)).diff_id is None


@every
async def test_a_table_that_lies_is_refused_and_the_layer_is_a_plain_tar(
    tmp_path: Path,
    compress: Callable[[bytes], bytes],
    make: Callable[..., Made],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = make(
        contents(compress), b'{"version":1,"entries":[{"type":"reg","name":"lie","size":3}]}'
    )
    async with site(tmp_path) as here:
        which = layer(here, made)
        with caplog.at_level(logging.WARNING):
            index = await here.layer_service.index(which)
        assert "read as an ordinary tar" in caplog.text
        assert {b"d", b"d/small", b"d/big", b"d/other"} <= set(names(index))
        assert index.diff_id is not None
        assert await read(here, which) == FIRST + SECOND + THIRD


@every
async def test_a_chunk_that_is_not_of_its_digest_is_an_error_for_it_alone(
    tmp_path: Path, compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    lying = contents(compress)
    lying.entries[3]["chunkDigest"] = f"sha256:{'0' * 64}"  # the second chunk of d/big
    async with site(tmp_path) as here:
        which = layer(here, make(lying))
        for _ in range(2):
            with pytest.raises(IntegrityError):
                await read(here, which, offset=600_000, size=10)
        assert await read(here, which, size=1000) == FIRST[:1000]
        assert await read(here, which, b"d/small") == b"small"


@every
async def test_bytes_that_came_damaged_are_an_error_until_they_come_as_they_are(
    tmp_path: Path, compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    made = make(contents(compress))
    place = made.blob.index(SECOND[1000:1020]) if compress is zstd else len(made.blob) // 3

    def flipped(content: bytes) -> bytes:
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    async with site(tmp_path) as here:
        which = layer(here, made)
        await here.layer_service.index(which)
        here.source.always = Fault(content=flipped)
        with pytest.raises(IntegrityError):
            await read(here, which)
        here.source.always = Fault()
        assert await read(here, which) == FIRST + SECOND + THIRD


async def test_one_blob_under_two_tables_is_two_indices(tmp_path: Path) -> None:
    made, other = contents(zipped), contents(zipped)
    other.entries = other.entries[:2]
    whole = starred(made)
    async with site(tmp_path) as here:
        one = layer(here, whole)
        plain = here.layer_service.layer(one.blob, None, {})
        assert one.blob == plain.blob and one.key != plain.key
        assert b"stargz.index.json" in names(await here.layer_service.index(plain))
        assert b"stargz.index.json" not in names(await here.layer_service.index(one))
        lying = here.layer_service.layer(one.blob, None, starred(other).annotations)
        assert b"stargz.index.json" in names(await here.layer_service.index(lying))
        assert len({one.key, plain.key, lying.key}) == 3


async def test_with_full_verification_tables_are_left_alone(tmp_path: Path) -> None:
    made = starred(contents(zipped))
    tmp_path.chmod(0o700)
    source, disk = MemorySource(), Disk(tmp_path)
    async with trio.open_nursery() as nursery:
        settings = Settings(cache=CacheSettings(directory=tmp_path, verify_full=True))
        async with site(tmp_path, source) as here:
            blobs = CachedBlobs(source, disk, nursery, settings)
            layer_service = LayerService(blobs, here.shelf, nursery, Limits(), formats=())
            index = await layer_service.index(
                layer_service.layer(source.put(made.blob), None, made.annotations)
            )
            assert index.diff_id is not None
        for opened in blobs._opened.values():
            opened.retire()
        nursery.cancel_scope.cancel()


async def test_reading_what_is_before_the_landmark_fetches_all_of_it_and_listing_does_not(
    tmp_path: Path,
) -> None:
    made = Contents(zipped)
    made.put("first", b"1" * 10)
    made.put("also", DICE.randbytes(700_000))
    made.put(".prefetch.landmark", b"\x0f")
    made.put("later", DICE.randbytes(2_000_000))
    whole = starred(made)
    async with site(tmp_path) as here:
        which = layer(here, whole)
        await here.layer_service.index(which)
        assert await read(here, which, b"later", size=10)
        before = sum(here.source.served)
        assert await read(here, which, b"first") == b"1" * 10
        with trio.fail_after(5):
            while sum(here.source.served) - before < 500_000:
                await trio.lowlevel.checkpoint()
        asked = len(here.source.opened)
        assert len(await read(here, which, b"also")) == 700_000
        assert len(here.source.opened) == asked


async def test_what_is_prefetched_has_a_bound(tmp_path: Path) -> None:
    made = Contents(zipped)
    made.put("first", b"1" * 10)
    made.put("also", DICE.randbytes(2_000_000))
    made.put(".prefetch.landmark", b"\x0f")
    whole = starred(made)
    async with site(tmp_path, prefetch_bytes=128 * 1024) as here:
        which = layer(here, whole)
        assert await read(here, which, b"first") == b"1" * 10
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sum(here.source.served) < 1_000_000 < len(whole.blob)


async def test_landmarks_of_a_chunked_layer_are_hidden_if_stargz_made_it(tmp_path: Path) -> None:
    made = contents(zstd, landmark=True)
    async with site(tmp_path) as here:
        assert b".prefetch.landmark" in names(
            await here.layer_service.index(layer(here, chunked(made)))
        )
        index = await here.layer_service.index(layer(here, chunked_by_nerdctl(made)))
        assert b".prefetch.landmark" not in names(index)
        assert index.prefetch > 0


async def test_two_annotations_of_one_table_must_agree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = chunked_by_nerdctl(contents(zstd))
    other = {**made.annotations, estargz.ANNOTATION: str(Digest.of(b"another table"))}
    async with site(tmp_path) as here:
        with caplog.at_level(logging.WARNING):
            index = await here.layer_service.index(layer(here, Made(made.blob, other, made.toc)))
        assert index.diff_id is not None  # it was streamed
        assert "in the annotation of eStargz" in caplog.text
