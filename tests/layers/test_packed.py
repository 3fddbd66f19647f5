"""Packed entries: they are equal to the original ones."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Malformed
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry, LayerIndex
from ocifs.layers.index.packed import BLOCK, pack
from ocifs.layers.merge.apply import merge
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

NAMES = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b""))
EXTENTS = st.lists(st.builds(Extent, *[st.integers(-1, 1 << 64)] * 3), max_size=3).map(tuple)
IN_ONE = st.builds(
    lambda plain, size: (size, (Extent(0, plain, size),)),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
)
CONTENT = IN_ONE | st.just((0, ())) | st.tuples(st.integers(0, 1 << 64), EXTENTS)
MEMBERS = st.builds(
    lambda content, *rest: LayerEntry(*rest[:6], content[0], *rest[6:], content[1]),
    CONTENT,
    NAMES,
    st.sampled_from(EntryKind),
    st.integers(0, 0o7777),
    *[st.integers(0, (1 << 32) - 1)] * 2,
    st.integers(-(10**30), 10**30) | st.integers(0, 2 * 10**18),
    NAMES,
    st.integers(0, (1 << 64) - 1),
    st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=2).map(tuple),
)


@given(st.lists(MEMBERS, max_size=12))
def test_entries_come_out_as_they_went_in(members: list[LayerEntry]) -> None:
    packed = pack(members)
    assert [*packed] == members
    assert [packed[place] for place in range(len(members))] == members


@given(st.lists(MEMBERS, max_size=12))
def test_an_attribute_of_an_entry_is_found_without_decoding_it(members: list[LayerEntry]) -> None:
    packed = pack(members)
    names = {name for member in members for name, _ in member.xattrs}
    assert all(packed.may_have_xattrs([name]) for name in names)
    assert names or not packed.may_have_xattrs([b"user.x"])


def test_entries_of_several_blocks_keep_their_places() -> None:
    members = [
        LayerEntry(str(place).encode(), EntryKind.FILE, 0o644, size=place)
        for place in range(2 * BLOCK + 3)
    ]
    packed = pack(members)
    assert len(packed.blocks) == 3
    assert [packed[place] for place in reversed(range(len(members)))] == members[::-1]


@pytest.mark.parametrize(
    "member",
    [LayerEntry(b"a\0b", EntryKind.FILE, 0), LayerEntry(b"a", EntryKind.SYMLINK, 0, link=b"a\0b")],
)
def test_a_name_with_a_nul_in_it_is_refused(member: LayerEntry) -> None:
    with pytest.raises(Malformed):
        pack([member, LayerEntry(b"other", EntryKind.FILE, 0)])


def test_threads_share_a_layer() -> None:
    members = pack(
        LayerEntry(b"f%d" % number, EntryKind.FILE, 0o644) for number in range(BLOCK * 80)
    )
    read_side_by_side(lambda place: members[place].path == b"f%d" % place, len(members))


def test_threads_share_a_merged_tree() -> None:
    directories = 400
    entries = [
        LayerEntry(b"d%d/f%d" % (each, each), EntryKind.FILE, 0o644) for each in range(directories)
    ]
    tree = merge([LayerIndex(entries, Digest.of(b""), 0, "none")], Limits())
    names = {b"d%d" % each: {b"f%d" % each} for each in range(directories)}
    root = tree.root.children
    assert root is not None

    def is_right(place: int) -> bool:
        name = b"d%d" % place
        return set(root[name].children or ()) == names[name]

    read_side_by_side(is_right, directories)


def read_side_by_side(is_right: Callable[[int], bool], places: int) -> None:
    """Two threads access random entries, and switch every few microseconds."""
    found: list[str] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(15_000):
                place = chance.randrange(places)
                if not is_right(place):
                    found.append(f"wrong at {place}")
        except Exception as error:
            found.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == []
