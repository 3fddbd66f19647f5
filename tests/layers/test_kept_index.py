"""A cached index without the cached blob: it lists, and reads fetch only the spans they need."""

from __future__ import annotations

import gzip
import lzma
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import zstandard

from ocifs.errors import IntegrityError, Unreachable
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.index.codec import decode, encode
from ocifs.layers.spans.span import Checksum, SpanMap
from ocifs.settings import MIB
from tests.layers.tars import entry, tar
from tests.layers.test_seekable import PLAIN
from tests.layers.test_service import Site, flipped, member, site
from tests.store.source import Fault, MemorySource

FILES = {
    b"%d" % number: PLAIN[number * 60_000 : number * 60_000 + 59_000 + number]
    for number in range(100)
}
TAR = tar(*[entry(name.decode(), content=content) for name, content in FILES.items()])


def frames(data: bytes) -> bytes:
    return b"".join(
        zstandard.compress(data[start : start + 400_000]) for start in range(0, len(data), 400_000)
    )


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "gzip, members": lambda data: b"".join(
        gzip.compress(data[n : n + MIB], 1) for n in range(0, len(data), MIB)
    ),
    "plain": lambda data: data,
    "zstd, frames": frames,
}
BLOBS = {form: pack(TAR) for form, pack in FORMS.items()}


def without_bytes(directory: Path) -> None:
    """Remove everything except the derived files of layers."""
    for kind in ("blobs", "partial", "derived/layer-plain.1"):
        shutil.rmtree(directory / "v1" / kind, ignore_errors=True)


async def content(here: Site, form: str, name: bytes) -> bytes:
    layer = here.layer(BLOBS[form], TAR)
    found = member(await here.layer_service.index(layer), name)
    return await here.layer_service.read(layer, found, 0, found.size)


@pytest.mark.parametrize("form", FORMS)
async def test_a_file_is_read_by_fetching_its_part_alone(tmp_path: Path, form: str) -> None:
    async with site(tmp_path) as here:
        assert await content(here, form, b"50") == FILES[b"50"]
    without_bytes(tmp_path)
    async with site(tmp_path) as here:
        index = await here.layer_service.index(here.layer(BLOBS[form], TAR))
        assert (len(index.entries), here.source.opened) == (100, [])
        assert await content(here, form, b"50") == FILES[b"50"]
        assert sum(here.source.served) < len(BLOBS[form]) / 2
        assert not (tmp_path / "v1/derived/layer-plain.1").exists()


@pytest.mark.parametrize("form", FORMS)
async def test_every_file_read_from_the_end_to_the_beginning_is_what_it_was(
    tmp_path: Path, form: str
) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(BLOBS[form], TAR))
    without_bytes(tmp_path)
    async with site(tmp_path) as here:
        for name in reversed(FILES):
            assert await content(here, form, name) == FILES[name]


async def test_readers_of_one_part_at_the_same_time_fetch_it_once(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(BLOBS["gzip"], TAR))
    without_bytes(tmp_path)
    async with site(tmp_path) as here:
        found: list[bytes] = []

        async def read(name: bytes) -> None:
            found.append(await content(here, "gzip", name))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(read, b"1")
        assert found == [FILES[b"1"]] * 6
        assert len(here.source.opened) <= 3


@pytest.mark.parametrize("form", FORMS)
async def test_other_bytes_than_those_that_were_verified_are_an_error_and_fetched_anew(
    tmp_path: Path, form: str
) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(BLOBS[form], TAR))
    without_bytes(tmp_path)
    noise = Fault(content=lambda data: bytes(byte ^ 0x5A for byte in data))
    async with site(tmp_path, MemorySource(always=noise)) as here:
        for _ in range(2):
            with pytest.raises(IntegrityError):
                await content(here, form, b"50")
        here.source.always = Fault()
        assert await content(here, form, b"50") == FILES[b"50"]


async def test_an_outage_is_no_reason_to_begin_anew(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.layer_service.index(here.layer(BLOBS["gzip"], TAR))
    without_bytes(tmp_path)
    async with site(tmp_path, MemorySource(always=Fault(Unreachable("it is down")))) as here:
        with pytest.raises(Unreachable):
            await content(here, "gzip", b"50")
        assert here.source.served == []
        here.source.always = Fault()
        assert await content(here, "gzip", b"50") == FILES[b"50"]


async def test_an_index_whose_spans_are_wrong_is_made_again(tmp_path: Path) -> None:
    """An index with a valid checksum and false content, from a bug or an attacker."""
    async with site(tmp_path) as here:
        layer = here.layer(BLOBS["gzip"], TAR)
        await here.layer_service.index(layer)
        path = here.shelf.path(INDEX, layer.blob.digest)
    first = decode(path.read_bytes())
    assert first is not None and first.spans is not None
    wrong = [
        replace(s, checksum=Checksum.of(b"else")) if n == 2 else s
        for n, s in enumerate(first.spans)
    ]
    path.write_bytes(encode(replace(first, spans=SpanMap("gzip", wrong))))
    async with site(tmp_path) as here:
        for name, expected in FILES.items():
            assert await content(here, "gzip", name) == expected


async def test_an_index_with_any_byte_damaged_is_made_again_and_never_a_wrong_byte(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        layer = here.layer(BLOBS["gzip"], TAR)
        await here.layer_service.index(layer)
        path = here.shelf.path(INDEX, layer.blob.digest)
    kept = path.read_bytes()
    for place in range(1, len(kept), len(kept) // 40):
        damaged = bytearray(kept)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert decode(bytes(damaged)) is None
    path.write_bytes(flipped(kept))
    async with site(tmp_path) as here:
        assert await content(here, "gzip", b"7") == FILES[b"7"]
    assert path.read_bytes() == kept


@pytest.mark.parametrize("form", [*FORMS, "xz"])
async def test_an_index_is_small(tmp_path: Path, form: str) -> None:
    blob = lzma.compress(TAR, preset=0) if form == "xz" else BLOBS[form]
    async with site(tmp_path) as here:
        layer = here.layer(blob, TAR)
        index = await here.layer_service.index(layer)
        assert here.shelf.path(INDEX, layer.blob.digest).stat().st_size <= 0.03 * len(TAR)
        assert isinstance(index.spans, SpanMap)
