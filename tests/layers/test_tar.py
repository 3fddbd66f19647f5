"""Tars of common tools, and invalid ones."""

from __future__ import annotations

import base64
import bz2
import gzip
import itertools
import lzma
import os
import re
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry, clean
from ocifs.layers.index.packed import pack
from ocifs.layers.indexing.decompress import sniff
from ocifs.layers.tar.reader import read_tar
from ocifs.settings import Limits
from tests.layers.corners import GNU, base256, block, pax
from tests.layers.tars import (
    DIRECTORY,
    HARDLINK,
    SYMLINK,
    content,
    entry,
    inflate,
    members,
    names,
    tar,
)

SAMPLE = tar(
    entry("./etc/", DIRECTORY),
    entry("etc/passwd", content=b"root\n" * 300),
    entry("etc/link", SYMLINK, linkname="/x"),
)


def test_entries_have_what_the_tar_says() -> None:
    data = tar(
        entry("usr/bin/su", content=b"x" * 700, mode=0o4755, uid=7, gid=9, mtime=1700000000.25),
        entry("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("run/pipe", tarfile.FIFOTYPE),
        entry("usr/bin/su2", HARDLINK, linkname="/usr/bin/su"),
    )
    su, null, pipe, link = members(data)
    assert (su.mode, su.uid, su.gid, su.mtime_ns, su.size) == (
        0o4755,
        7,
        9,
        1700000000_250000000,
        700,
    )
    assert content(data, su) == b"x" * 700
    assert (null.path, null.kind, null.rdev) == (b"dev/null", EntryKind.CHARACTER, 0x103)
    assert pipe.kind is EntryKind.FIFO
    assert (link.kind, link.link) == (EntryKind.HARDLINK, b"usr/bin/su")


def test_times_have_all_their_nanoseconds() -> None:
    data = tar(
        entry("a", pax_headers={"mtime": "1700000000.123456789"}),
        entry("b", pax_headers={"mtime": "-1.5"}),
    )
    assert [member.mtime_ns for member in members(data)] == [1700000000_123456789, -1_500000000]


@pytest.mark.parametrize(
    "seconds", [-62_135_596_799, -(2**31) - 1, 2**33, 10_413_792_000, 253_402_300_799]
)
def test_times_are_those_of_the_years_1_to_9999(seconds: int) -> None:
    [member] = members(tar(entry("a", pax_headers={"mtime": f"{seconds}.000000001"[:30]})))
    assert member.mtime_ns == seconds * 10**9 + (1 if seconds > 0 else -1)
    assert list(pack([member])) == [member]


@pytest.mark.parametrize("time", ["nan", "inf", "1e400", "junk", "9" * 40])
def test_a_time_that_is_none_is_the_epoch(time: str) -> None:
    assert members(tar(entry("a", pax_headers={"mtime": time})))[0].mtime_ns == 0


def test_extended_attributes_are_binary_safe_in_both_forms() -> None:
    value = bytes(range(256))
    data = tar(
        entry("a", pax_headers={"SCHILY.xattr.user.x": value.decode("utf-8", "surrogateescape")}),
        entry(
            "b",
            pax_headers={"LIBARCHIVE.xattr.user.%3D": base64.b64encode(value).decode().rstrip("=")},
        ),
    )
    assert [member.xattrs for member in members(data)] == [
        ((b"user.x", value),),
        ((b"user.=", value),),
    ]


def test_names_that_are_no_utf_8_and_long_ones_survive_in_every_form() -> None:
    long = "d/" * 120 + "caf\udce9" + "x" * 120
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar(entry(long), entry("l", SYMLINK, linkname=long), form=form)
        raw = long.encode("utf-8", "surrogateescape")
        assert [(member.path, member.link) for member in members(data)] == [(raw, b""), (b"l", raw)]


def test_global_headers_mean_nothing() -> None:
    info, _ = entry("a", uid=5)
    header = info.create_pax_global_header({"uid": "77", "path": "evil"})
    assert [(m.path, m.uid) for m in members(header + tar((info, b"")))] == [(b"a", 5)]


@pytest.mark.parametrize(
    "form",
    ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"],
)
@pytest.mark.parametrize("pieces", [0, 1, 4, 5, 30])
def test_holes_take_no_bytes(tmp_path: Path, form: str, pieces: int) -> None:
    file = tmp_path / "holes"
    with file.open("wb") as out:
        for number in range(pieces):
            out.seek(number * 1_000_000)
            out.write(b"data%d" % number)
        out.truncate(40_000_000)
    kind, *more = form.split()
    made = subprocess.run(
        ["tar", "-C", tmp_path, "-S", f"--format={kind}", *more, "-c", "holes"],
        capture_output=True,
        check=True,
    ).stdout
    [member] = members(made)
    assert (member.path, member.size) == (b"holes", 40_000_000)
    assert content(made, member) == file.read_bytes()
    assert len(made) < 2_000_000


@pytest.mark.parametrize("form", ["gnu", "pax --sparse-version=0.1", "pax --sparse-version=1.0"])
def test_a_file_of_more_than_8_gib_may_be_mostly_holes(tmp_path: Path, form: str) -> None:
    file = tmp_path / "holes"
    with file.open("wb") as out:
        out.seek(9 << 30)
        out.write(b"far")
        out.truncate(10 << 30)
    kind, *more = form.split()
    made = subprocess.run(
        ["tar", "-C", tmp_path, "-S", f"--format={kind}", *more, "-c", "holes"],
        capture_output=True,
        check=True,
    ).stdout
    [member] = members(made)
    assert member.size == 10 << 30
    [extent] = member.extents
    assert extent.offset <= 9 << 30 < extent.offset + extent.length
    place = extent.position + (9 << 30) - extent.offset
    assert made[place : place + 3] == b"far"


@pytest.mark.parametrize("written", ["pax", "base-256"])
def test_a_file_of_more_than_8_gib_is_passed_over(written: str) -> None:
    """Octal digits represent at most 8 GiB."""
    size = 9 << 30
    head = block(b"big", magic=GNU, size=base256(size, 12))
    if written == "pax":
        head = pax((b"size", b"%d" % size)) + block(b"big", size=0)
    zeros, found = bytes(1 << 20), list[LayerEntry]()
    stream = itertools.chain(
        [head], itertools.repeat(zeros, size >> 20), [block(b"after", content=b"abc") + bytes(1024)]
    )
    plain = read_tar(stream, Limits(), found.append)
    assert [(member.path, member.size) for member in found] == [(b"big", size), (b"after", 3)]
    assert found[1].extents == (Extent(0, len(head) + size + 512, 3),)
    assert plain == len(head) + size + 512 + 512 + 1024


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("./a", "a"),
        ("/a//b/", "a/b"),
        ("../../a", "a"),
        ("a/../../b", "b"),
        (".", ""),
        ("..", ""),
        ("a/./b", "a/b"),
    ],
)
def test_names_never_lead_outside(path: str, cleaned: str) -> None:
    assert clean(path.encode()) == cleaned.encode()


def _gzip_with_fields(data: bytes) -> bytes:
    """A member with all optional fields of RFC 1952, 2.3.1."""
    fixed = b"\x1f\x8b\x08\x1f" + bytes(4) + b"\x02\xff"
    head = fixed + b"\x06\0ab\x02\0cd" + b"a name\0" + b"a comment\0"
    packed = zlib.compressobj(wbits=-15)
    tail = struct.pack("<II", zlib.crc32(data), len(data))
    return (
        head
        + struct.pack("<H", zlib.crc32(head) & 0xFFFF)
        + packed.compress(data)
        + packed.flush()
        + tail
    )


FORMS = {
    "none": SAMPLE,
    "gzip": gzip.compress(SAMPLE),
    "gzip members": b"".join(
        gzip.compress(SAMPLE[n : n + 512]) for n in range(0, len(SAMPLE), 512)
    ),
    "gzip with fields": _gzip_with_fields(SAMPLE),
    "gzip with empty members": gzip.compress(b"")
    + gzip.compress(SAMPLE[:700])
    + _gzip_with_fields(b"") * 2
    + gzip.compress(SAMPLE[700:])
    + gzip.compress(b""),
    "gzip without compression": gzip.compress(SAMPLE, 0),
    "zstd with empty frames": zstandard.compress(b"")
    + zstandard.compress(SAMPLE)
    + zstandard.compress(b""),
    "gzip padded": gzip.compress(SAMPLE) + bytes(3000),
    "gzip then garbage": gzip.compress(SAMPLE) + b"garbage" * 300,
    "zstd": zstandard.compress(SAMPLE),
    "zstd frames": b"".join(
        b"\x52\x2a\x4d\x18\x04\0\0\0skip" + zstandard.compress(SAMPLE[n : n + 900])
        for n in range(0, len(SAMPLE), 900)
    ),
    "bzip2": bz2.compress(SAMPLE),
    "xz streams": lzma.compress(SAMPLE[:1000]) + lzma.compress(SAMPLE[1000:]),
    "no end marker": SAMPLE[: SAMPLE.rindex(b"ustar") - 257 + 512],
    "garbage after the end": SAMPLE + b"garbage" * 999,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 511, 1 << 20])
def test_every_compression_gives_the_same_entries(form: str, size: int) -> None:
    plain = inflate(FORMS[form], size=size)
    assert members(plain) == members(SAMPLE) == members(FORMS[form])


@pytest.mark.parametrize("form", ["gzip", "zstd", "bzip2", "xz streams", "none"])
def test_a_stream_that_is_cut_is_malformed(form: str) -> None:
    data = FORMS[form][: len(FORMS[form]) // 2] if form != "none" else SAMPLE[:1700]
    with pytest.raises(Malformed):
        members(data)


def test_a_layer_of_no_bytes_is_empty() -> None:
    assert members(b"") == members(bytes(1024)) == members(gzip.compress(b"")) == []


@pytest.mark.parametrize(
    "data", [b"x", b"<html>" * 500, b"\x1f\x8bnope", b"\x28\xb5\x2f\xfdnope nope", b"BZhnope!"]
)
def test_what_is_no_tar_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        members(data)


def test_a_damaged_header_in_the_middle_is_no_end() -> None:
    data = bytearray(tar(entry("a"), entry("b"), entry("c")))
    data[512 + 3] ^= 1
    with pytest.raises(Malformed, match="damaged header"):
        members(bytes(data))


def test_bombs_meet_a_bound() -> None:
    bomb = tar(entry("zeros", content=bytes(3 << 20)))
    with pytest.raises(LimitExceeded, match="layer_bytes"):
        members(gzip.compress(bomb), Limits(layer_bytes=1 << 20))
    with pytest.raises(LimitExceeded, match="layer_members"):
        members(tar(*(entry(str(n)) for n in range(5))), Limits(layer_members=4))
    with pytest.raises(LimitExceeded, match="layer_header_bytes"):
        members(tar(entry("x" * 5000)), Limits(layer_header_bytes=4000))
    with pytest.raises(LimitExceeded, match="layer_index_bytes"):
        members(tar(entry("x" * 90)), Limits(layer_index_bytes=100))
    with pytest.raises(LimitExceeded, match="layer_ratio"):
        inflate(zstandard.compress(bytes(80 << 20)), Limits())


@pytest.mark.parametrize("form", ["zstd", "xz"])
def test_a_stream_that_wants_more_memory_than_it_may_have_is_too_much_and_not_damaged(
    form: str,
) -> None:
    if form == "zstd":
        wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
        frame = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        data = frame.compress(SAMPLE) + frame.flush()
    else:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26}]
        data = lzma.compress(SAMPLE, filters=filters)
    assert members(data) == members(SAMPLE)
    with pytest.raises(LimitExceeded, match="layer_window"):
        members(data, Limits(layer_window=1 << 20))


@pytest.mark.parametrize(
    "name",
    [b"BZhang/", b"BZh91AY/", b"\x1f\x8b\x08/", b"\x28\xb5\x2f\xfd/", b"\xfd7zXZ", b"P*M\x18/"],
)
@pytest.mark.parametrize("size", [1, 511, 1 << 20])
def test_a_first_block_whose_checksum_holds_is_a_tar_whatever_its_name_begins_with(
    name: bytes, size: int
) -> None:
    data = block(name, b"5") + block(name.strip(b"/") + b"/f", content=b"1") + bytes(1024)
    assert inflate(data, size=size) == data
    for packed in (
        gzip.compress(data),
        bz2.compress(data),
        lzma.compress(data),
        zstandard.compress(data),
    ):
        assert names(members(packed)) == [name.strip(b"/"), name.strip(b"/") + b"/f"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x04\x22\x4d\x18" + bytes(2000), "lz4 data"),
        (lzma.compress(SAMPLE, lzma.FORMAT_ALONE), "lzma data"),
        (gzip.compress(gzip.compress(SAMPLE)), "gzip data, compressed twice"),
        (zstandard.compress(gzip.compress(SAMPLE)), "gzip data, compressed twice"),
        (gzip.compress(zstandard.compress(SAMPLE)), "zstd data, compressed twice"),
        (gzip.compress(b"PK\x03\x04" + bytes(600)), "a zip archive"),
        (b"hsqs" + bytes(2000), "a squashfs image"),
        (bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(2000), "an EROFS image"),
        (b"age-encryption.org/v1\n" + bytes(2000), "encrypted"),
        (b"<!DOCTYPE html>" + bytes(600), "an HTML or XML page"),
        (b'{"schemaVersion": 2}' + bytes(600), "JSON"),
    ],
)
def test_what_is_not_a_tar_is_called_by_its_name(data: bytes, what: str) -> None:
    with pytest.raises(Malformed, match=re.escape(what)):
        members(data)


@pytest.mark.parametrize("size", [1 << 60, (1 << 63) - 1, 1 << 63, 10**23])
def test_a_file_of_exabytes_of_holes_meets_a_bound(size: int) -> None:
    holes = {"GNU.sparse.map": "0,5", "GNU.sparse.size": str(size)}
    with pytest.raises(LimitExceeded, match="layer_file_bytes"):
        members(tar(entry("a", pax_headers=holes, content=b"01234"), entry("b")))


def test_a_negative_size_ends_at_once() -> None:
    for key in ("size", "GNU.sparse.size"):
        with pytest.raises(Malformed):
            members(
                tar(entry("a", pax_headers={key: "-600", "GNU.sparse.map": "0,-5"}), entry("b"))
            )


def test_magic_decides() -> None:
    assert [
        sniff(head) for head in (b"\x1f\x8b", b"\x5f\x2a\x4d\x18", b"\x28\xb5\x2f\xfd", b"PK")
    ] == [
        "gzip",
        "zstd",
        "zstd",
        "none",
    ]


@given(st.data())
def test_a_changed_tar_is_an_error_of_ours_or_a_tree(data: st.DataObject) -> None:
    changed = bytearray(_VARIED)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with_checksums = _with_checksums(bytes(changed))
    for candidate in (bytes(changed), with_checksums):
        try:
            found = members(candidate)
        except (Malformed, LimitExceeded):
            continue
        for member in found:
            assert b".." not in member.path.split(b"/")
            assert not member.path.startswith(b"/")
            assert member.extents == () or isinstance(member.extents[0], Extent)


_VARIED = tar(
    entry("a/b", content=b"123", pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
    entry("x" * 200, content=b"5"),
    entry("s", tarfile.GNUTYPE_SPARSE),
    entry("h", HARDLINK, linkname="a/b"),
    form=tarfile.PAX_FORMAT,
) + tar(entry("y" * 200), form=tarfile.GNU_FORMAT)


def _with_checksums(data: bytes) -> bytes:
    """Correct the checksum of each header, so that changes reach the parser."""
    out = bytearray(data)
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + 512])
    return bytes(out)


def test_names_are_in_the_order_of_the_tar() -> None:
    assert names(members(SAMPLE)) == [b"etc", b"etc/passwd", b"etc/link"]


def test_an_entry_of_an_unknown_type_is_a_file_and_a_volume_label_is_none() -> None:
    data = tar(entry("label", b"V"), entry("u", b"Z", content=b"content"), entry("b"))
    found = members(data)
    assert names(found)[0] == b"u"
    assert found[0].kind is EntryKind.FILE


def test_numbers_that_linux_cannot_have_keep_the_bits_that_it_has() -> None:
    data = tar(
        entry("c", tarfile.CHRTYPE, devmajor=5000, devminor=2_000_000),
        entry("f", uid=1 << 40, gid=(1 << 32) - 1),
        form=tarfile.GNU_FORMAT,
    )
    device, file = members(data)
    assert (os.major(device.rdev), os.minor(device.rdev)) == (904, 951424)
    assert (file.uid, file.gid) == (0, 0)


def test_the_nearest_of_two_pax_headers_holds_and_records_without_a_value_do_not() -> None:
    first = tar(entry("x", pax_headers={"path": "first"}))[:1024]
    second = tar(entry("x", uid=7, pax_headers={"path": "second", "uid": ""}))
    assert [(m.path, m.uid) for m in members(first + second)] == [(b"second", 7)]


def test_a_tar_of_global_headers_alone_is_empty() -> None:
    header = tarfile.TarInfo().create_pax_global_header({"comment": "abc"})
    assert members(header + bytes(1024)) == members(header) == []


def test_a_tar_may_end_without_what_fills_its_last_block() -> None:
    data = tar(entry("a", content=b"12345"))
    assert names(members(data[: 512 + 5])) == [b"a"]
    with pytest.raises(Malformed):
        members(data[: 512 + 4])


def test_gnu_times_are_no_prefix_and_old_go_prefixes_are() -> None:
    def with_field(field: bytes) -> bytes:
        header = bytearray(tar(entry("f"), form=tarfile.GNU_FORMAT))
        header[345 : 345 + len(field)] = field
        return _with_checksums(bytes(header))

    assert names(members(with_field(b"14721352313\x0014721352313"))) == [b"f"]
    assert names(members(with_field(b"a/directory"))) == [b"a/directory/f"]


@given(
    st.lists(st.sampled_from([b"", b".", b"..", b"a", b".b", b"c.", b"..."]), max_size=6),
    st.sampled_from([b"", b"/", b"./"]),
)
def test_a_name_is_cleaned_part_by_part(parts: list[bytes], before: bytes) -> None:
    path, found = before + b"/".join(parts), []
    for part in path.split(b"/"):
        if part == b"..":
            del found[-1:]
        elif part not in (b"", b"."):
            found.append(part)
    assert clean(path) == b"/".join(found)
