"""Hostile layers: an error of ocifs or a tree, with no more work than the limits allow."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.errors import OcifsError
from ocifs.layers.index.codec import decode, encode
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import MergedEntry, directories
from ocifs.layers.view.links import rebase_target
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Limits
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, members, tar

LIMITS = Limits(
    layer_bytes=8 * MIB,
    layer_members=5_000,
    implied_directories=5_000,
    layer_header_bytes=64 * 1024,
    layer_index_bytes=MIB,
    layer_window=MIB,
)
SEED = tar(
    entry("d", DIRECTORY),
    entry("d/f", content=b"x" * 1500, pax_headers={"mtime": "1.5", "SCHILY.xattr.user.a": "b"}),
    entry("d/" + "n" * 150, SYMLINK, linkname="t" * 150),
    entry("h", HARDLINK, linkname="d/f"),
    entry(
        "s",
        pax_headers={"GNU.sparse.map": "0,5,10,5", "GNU.sparse.size": "20", "GNU.sparse.name": "s"},
        content=b"0123456789",
    ),
    entry("d/.wh.f"),
    entry("é", content=b"y" * 10),
)
PACKED: list[Callable[[bytes], bytes]] = [
    lambda data: data,
    lambda data: gzip.compress(data, mtime=0),
    zstandard.ZstdCompressor().compress,
]


def judged(data: bytes) -> None:
    """The law: a valid tree, or an error of ocifs."""
    try:
        found = members(data, LIMITS)
        tree = merge(
            [LayerIndex(tuple(found), Digest.of(data), len(data), "none")], LIMITS, alone=True
        )
    except OcifsError:
        return
    assert len(found) <= LIMITS.layer_members
    index = LayerIndex(tuple(found), Digest.of(b""), 0, "none")
    assert decode(encode(index)) == index
    for member in found:
        _in_order(member)
    _stays_inside(tree.root)


def _in_order(member: LayerEntry) -> None:
    parts = member.path.split(b"/") if member.path else []
    assert not {b"", b".", b".."} & set(parts)
    assert b"\0" not in member.path
    assert 0 <= member.mode <= 0o7777
    assert member.size >= 0
    assert -(1 << 63) <= member.mtime_ns < 1 << 63
    end = 0
    for extent in member.extents:
        assert extent.offset >= end and extent.length > 0 and extent.position >= 0
        end = extent.offset + extent.length
    assert end <= member.size


def _stays_inside(root: MergedEntry) -> None:
    todo: list[tuple[tuple[bytes, ...], MergedEntry]] = [((), root)]
    while todo:
        where, here = todo.pop()
        for name, item in (here.children or {}).items():
            if item.children is not None:
                todo.append(((*where, name), item))
            elif item.entry.kind is EntryKind.SYMLINK:
                assert not rebase_target(root, where, item.entry.link).startswith(b"/")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(PACKED))
def test_any_bytes(data: bytes, pack: Callable[[bytes], bytes]) -> None:
    judged(data)
    judged(pack(data))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=12)), max_size=6
    ),
    st.integers(0, len(SEED)),
    st.sampled_from(PACKED),
    st.booleans(),
)
def test_a_tar_with_damage(
    changes: list[tuple[int, bytes]], cut: int, pack: Callable[[bytes], bytes], mend: bool
) -> None:
    data = bytearray(SEED)
    for place, value in changes:
        data[place : place + len(value)] = value
    if mend:  # with true checksums the damage gets past the first look
        _mend(data)
    judged(pack(bytes(data)))
    judged(pack(bytes(data[:cut])))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PACKED[1:]), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_compressed_stream_with_damage(
    pack: Callable[[bytes], bytes], place: int, value: bytes
) -> None:
    data = bytearray(pack(SEED))
    place %= len(data)
    data[place : place + len(value)] = value
    judged(bytes(data))


@pytest.mark.parametrize("pack", PACKED[1:], ids=["gzip", "zstd"])
def test_a_bomb_takes_no_memory(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(256 * MIB))
    tracemalloc.start()
    try:
        judged(bomb)
        assert tracemalloc.get_traced_memory()[1] < 80 * MIB
    finally:
        tracemalloc.stop()


def test_a_million_implied_directories_and_long_names_meet_bounds() -> None:
    judged(tar(*[entry("/".join([str(number)] * 3000)) for number in range(20)]))
    judged(tar(*[entry("a" * 60_000) for _ in range(40)]))
    judged(tar(*[entry(str(number)) for number in range(6_000)]))


def test_paths_and_links_that_climb_stay_inside() -> None:
    dice = random.Random(3)
    words = ["..", ".", "", "a", "b", "l"]
    for _ in range(500):
        stack = []
        for _ in range(8):
            path, target = ("/".join(dice.choices(words, k=4)) for _ in range(2))
            stack.append(entry(path, dice.choice([SYMLINK, DIRECTORY, HARDLINK]), linkname=target))
        judged(tar(*stack))


def _mend(data: bytearray) -> None:
    """Correct the checksum of each block that looks like a header."""
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] != b"ustar":
            continue
        block[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block)


def test_the_seed_itself_is_in_order() -> None:
    found = members(SEED, LIMITS)
    assert len(found) == 7
    assert list(
        directories(
            merge([LayerIndex(tuple(found), Digest.of(SEED), len(SEED), "none")], LIMITS).root
        )
    )
