"""zTOCs of SOCI's own code against the entries of the tar, and false zTOCs."""

from __future__ import annotations

import gzip
import random
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import IntegrityError, LimitExceeded, Malformed
from ocifs.layers.index.codec import decode as decode_index
from ocifs.layers.index.codec import encode as encode_index
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.spans.checkpoints import decode
from ocifs.layers.toc.protocol import Toc
from ocifs.layers.toc.ztoc import _checkpoints, read_ztoc
from ocifs.settings import MIB, Limits
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, members, tar
from tests.support.tools import tool

LIMITS = Limits()
DICE = random.Random(21)
SPAN = 1 * MIB
TAR = tar(
    entry("./", DIRECTORY, mode=0o750, mtime=1_700_000_000),
    entry("etc/passwd", content=b"root:x:0:0\n", uid=3, gid=70_000, mode=0o4755),
    entry("big", content=DICE.randbytes(5_000_000), mtime=1_600_000_000.25),
    entry("link", SYMLINK, linkname="../etc/passwd"),
    entry("other", HARDLINK, linkname="./etc/passwd"),
    entry("device", tarfile.CHRTYPE, devmajor=4, devminor=64),
    entry("block", tarfile.BLKTYPE, devmajor=8, devminor=1),
    entry("pipe", tarfile.FIFOTYPE),
    entry("n" * 300, content=b"long"),
    entry(
        "x", content=b"x", pax_headers={"LIBARCHIVE.xattr.user.c": "ZA", "SCHILY.xattr.user.a": "b"}
    ),
    entry(".wh.gone"),
    entry("text", content=b"abc\n" * 700_000),
    entry("empty"),
)
BLOB = gzip.compress(TAR, mtime=0)


def ztoc_of(blob: bytes, place: Path, form: str = "gzip", span: int = SPAN) -> bytes:
    """The zTOC that SOCI creates for a layer."""
    program = tool("ztocs", place)
    (place / "layer").write_bytes(blob)
    return program(str(place / "layer"), str(span), form)


@pytest.fixture(scope="module")
def ztoc(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return ztoc_of(BLOB, tmp_path_factory.mktemp("ztocs"))


def plain(table: Toc, blob: bytes) -> bytes:
    """All decompressed bytes, each span decoded by itself."""
    compression = table.spans.compression
    return b"".join(decode(compression, span, blob[span.start : span.stop]) for span in table.spans)


def test_a_table_lists_what_the_tar_has_and_each_span_can_be_entered(ztoc: bytes) -> None:
    table = read_ztoc(ztoc, len(BLOB), LIMITS)
    assert list(table.entries) == list(members(TAR, LIMITS))
    assert len(table.spans) > 3
    assert TAR.startswith(plain(table, BLOB))
    assert table.size > TAR.index(b"abc\n" * 10)


def test_a_table_of_a_plain_tar(tmp_path: Path) -> None:
    table = read_ztoc(ztoc_of(TAR, tmp_path, "uncompressed"), len(TAR), LIMITS)
    assert list(table.entries) == list(members(TAR, LIMITS))
    assert table.spans.compression == "none"
    assert TAR.startswith(plain(table, TAR))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    odd = tar(entry(b"caf\xe9".decode("utf-8", "surrogateescape"), content=b"x"))
    table = read_ztoc(ztoc_of(gzip.compress(odd), tmp_path), len(gzip.compress(odd)), LIMITS)
    assert [each.path for each in table.entries] == [b"caf\xe9"]


def test_the_first_version_of_checkpoints_leaves_out_the_first(ztoc: bytes) -> None:
    """The same table without it, as written by SOCI before version 0.6."""
    count = len(read_ztoc(ztoc, len(BLOB), LIMITS).spans)
    each, head = 8 + 8 + 1 + 32768, 4 + 8
    at = ztoc.index(struct.pack("<iqqq", count, SPAN, 10, 0))
    now = ztoc[at : at + head + count * each]
    assert list(_checkpoints(now[:head] + now[head + each :])) == list(_checkpoints(now))


def test_what_is_kept_of_a_table_reads_the_same(ztoc: bytes) -> None:
    table = read_ztoc(ztoc, len(BLOB), LIMITS)
    index = LayerIndex(table.entries, None, table.size, "soci", table.spans)
    kept = decode_index(encode_index(index))
    assert kept == index
    assert kept is not None
    assert kept.spans is not None
    assert kept.spans.packed


def test_a_span_of_other_bytes_is_found(ztoc: bytes) -> None:
    table = read_ztoc(ztoc, len(BLOB), LIMITS)
    for span in table.spans:
        data = bytearray(BLOB[span.start : span.stop])
        data[len(data) // 2] ^= 1
        with pytest.raises(IntegrityError):
            decode("gzip", span, bytes(data))


def test_a_table_of_another_blob_is_refused(ztoc: bytes) -> None:
    with pytest.raises(Malformed, match="size"):
        read_ztoc(ztoc, len(BLOB) + 1, LIMITS)


def test_a_sparse_file_makes_the_table_useless(tmp_path: Path) -> None:
    """A zTOC does not contain the positions of a sparse file's pieces."""
    sparse = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "s",
        "GNU.sparse.realsize": "1000",
    }
    holes = tar(
        entry("s", content=b"1\n0\n4\n".ljust(512, b"\0") + b"data", pax_headers=sparse),
        entry("t", content=bytes(9000)),
    )
    blob = gzip.compress(holes)
    with pytest.raises(Malformed, match="sparse"):
        read_ztoc(ztoc_of(blob, tmp_path), len(blob), LIMITS)


@pytest.mark.parametrize(
    ("bound", "little"),
    [
        ("chunk_bytes", 100_000),
        ("layer_bytes", 5_000_000),
        ("layer_members", 3),
        ("layer_header_bytes", 200),
    ],
)
def test_what_a_table_says_has_bounds(ztoc: bytes, bound: str, little: int) -> None:
    with pytest.raises(LimitExceeded, match=bound):
        read_ztoc(ztoc, len(BLOB), replace(LIMITS, **{bound: little}))


@given(st.data())
def test_a_table_that_was_tampered_with_is_refused_or_another_table(
    ztoc: bytes, data: st.DataObject
) -> None:
    """An attacker who controls the digest can write any zTOC: the result is an error or a table."""
    changed = bytearray(ztoc[: data.draw(st.integers(0, len(ztoc)), label="length")])
    for place in data.draw(
        st.lists(st.integers(0, max(0, len(changed) - 1)), max_size=20), label="places"
    ):
        if changed:
            changed[place] = data.draw(st.integers(0, 255), label="byte")
    try:
        table = read_ztoc(bytes(changed), len(BLOB), LIMITS)
    except (Malformed, LimitExceeded):
        return
    for span in table.spans:
        assert 0 <= span.start < span.stop <= len(BLOB)
        try:
            decode(table.spans.compression, span, BLOB[span.start : span.stop])
        except IntegrityError:
            continue
