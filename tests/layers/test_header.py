"""Simple headers: the fast parser returns the same as the general one, and as tarfile."""

from __future__ import annotations

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.errors import OcifsError
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.tar import header
from ocifs.layers.tar import reader as reading
from ocifs.layers.tar.header import read_simple_header
from ocifs.layers.tar.reader import read_tar
from ocifs.settings import Limits
from tests.layers.corners import CORNERS
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, pieces, tar

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT)


def read(data: bytes, size: int) -> tuple[list[LayerEntry], int] | str:
    """The entries and the size of a tar that arrives in pieces of a size; or the error."""
    found: list[LayerEntry] = []
    try:
        return found, read_tar(pieces(data, size), Limits(), found.append)
    except OcifsError as error:
        return str(error)


def agreed(data: bytes, size: int = 4096) -> None:
    """The law: both parsers return the same."""
    quick = read(data, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "read_simple_header", lambda *_: None)
        assert quick == read(data, size)


@pytest.mark.parametrize("name", CORNERS)
def test_every_corner_reads_the_same(name: str) -> None:
    for data in CORNERS[name]:
        agreed(data)


def with_checksum(block: bytearray) -> None:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)


@st.composite
def damaged_tars(draw: st.DrawFn) -> bytes:
    """Tars with changed bytes in their headers, some of them with a corrected checksum."""
    names = st.text(
        st.characters(max_codepoint=255, exclude_characters="\0"), min_size=1, max_size=99
    )
    kinds = st.sampled_from(
        (tarfile.REGTYPE, DIRECTORY, SYMLINK, HARDLINK, tarfile.CHRTYPE, tarfile.AREGTYPE)
    )
    facts = {
        "mtime": st.integers(0, 8**11 - 1),
        "uid": st.integers(0, 8**7 - 1),
        "mode": st.integers(0, 0o7777),
    }
    made = draw(
        st.lists(
            st.builds(entry, names, kinds, st.binary(max_size=700), linkname=names, **facts),
            min_size=1,
            max_size=4,
        )
    )
    data = bytearray(tar(*made, form=draw(st.sampled_from((*FORMS, tarfile.PAX_FORMAT)))))
    starts = [
        place for place in range(0, len(data), 512) if data[place + 257 : place + 262] == b"ustar"
    ]
    special = st.integers(0, 511) | st.sampled_from(
        (0, 1, 100, 124, 135, 136, 148, 154, 156, 157, 257, 263, 329, 345, 500, 508)
    )
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.sampled_from(starts))
        data[start + draw(special)] = draw(st.sampled_from(b"\0 07/18.s\xff") | st.integers(0, 255))
        if draw(st.booleans()):
            block = data[start : start + 512]
            with_checksum(block)
            data[start : start + 512] = block
    return bytes(data[: draw(st.sampled_from((len(data), len(data) - 512, 600, 512)))])


@settings(deadline=None)
@given(damaged_tars(), st.sampled_from((512, 1000, 1 << 20)))
def test_damaged_headers_read_the_same(data: bytes, size: int) -> None:
    agreed(data, size)


@pytest.mark.parametrize("form", FORMS)
def test_the_usual_is_read_at_once(form: int) -> None:
    made = (
        entry("d", DIRECTORY, mtime=7),
        entry("d/f", content=b"abc", uid=1000, mtime=1_700_000_000),
        entry("s", SYMLINK, linkname="/d/f"),
        entry("h", HARDLINK, linkname="./d/f"),
    )
    data = tar(*made, form=form)
    places = (0, 512, 1536, 2048)
    found = [read_simple_header(data[place : place + 512], place + 512) for place in places]
    assert [(each.path, each.kind, each.link) for each in found if each] == [
        (b"d", EntryKind.DIRECTORY, b""),
        (b"d/f", EntryKind.FILE, b""),
        (b"s", EntryKind.SYMLINK, b"/d/f"),
        (b"h", EntryKind.HARDLINK, b"d/f"),
    ]
    assert found[1] is not None
    assert (found[1].uid, found[1].mtime_ns, found[1].extents) == (
        1000,
        1_700_000_000 * 10**9,
        ((0, 1024, 3),),
    )
    assert header.read_simple_header(data[:511], 0) is None
