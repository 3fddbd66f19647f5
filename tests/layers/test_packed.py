"""Entries in blocks of columns: whatever they have comes out as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Malformed
from ocifs.layers.member import Extent, Kind, Member
from ocifs.layers.packed import BLOCK, pack

NAMES = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b""))
EXTENTS = st.lists(st.builds(Extent, *[st.integers(-1, 1 << 64)] * 3), max_size=3).map(tuple)
IN_ONE = st.builds(
    lambda plain, size: (size, (Extent(0, plain, size),)), st.integers(0, 1 << 40), st.integers(0, 1 << 40)
)
CONTENT = IN_ONE | st.just((0, ())) | st.tuples(st.integers(0, 1 << 64), EXTENTS)
MEMBERS = st.builds(
    lambda content, *rest: Member(*rest[:6], content[0], *rest[6:], content[1]),
    CONTENT,
    NAMES,
    st.sampled_from(Kind),
    st.integers(0, 0o7777),
    *[st.integers(0, (1 << 32) - 1)] * 2,
    st.integers(-(10**30), 10**30) | st.integers(0, 2 * 10**18),
    NAMES,
    st.integers(0, (1 << 64) - 1),
    st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=2).map(tuple),
)


@given(st.lists(MEMBERS, max_size=12))
def test_entries_come_out_as_they_went_in(members: list[Member]) -> None:
    packed = pack(members)
    assert [*packed] == members
    assert [packed[place] for place in range(len(members))] == members


def test_entries_of_several_blocks_keep_their_places() -> None:
    members = [Member(str(place).encode(), Kind.FILE, 0o644, size=place) for place in range(2 * BLOCK + 3)]
    packed = pack(members)
    assert len(packed.blocks) == 3
    assert [packed[place] for place in reversed(range(len(members)))] == members[::-1]


@pytest.mark.parametrize("member", [Member(b"a\0b", Kind.FILE, 0), Member(b"a", Kind.SYMLINK, 0, link=b"a\0b")])
def test_a_name_with_a_nul_in_it_is_refused(member: Member) -> None:
    with pytest.raises(Malformed):
        pack([member, Member(b"other", Kind.FILE, 0)])
