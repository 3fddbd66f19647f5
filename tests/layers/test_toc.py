"""Tables of contents: their entries are shown, and a false table is rejected as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.errors import Malformed
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.spans.checkpoints import decode
from ocifs.layers.toc import estargz
from ocifs.layers.toc.formats import TocFormats
from ocifs.layers.toc.protocol import Toc
from ocifs.settings import KIB, MIB, Limits
from tests.layers.stacks import shape
from tests.layers.tables import (
    CHECKSUM,
    POSITION,
    Contents,
    Entry,
    Made,
    chunked,
    footer,
    read,
    starred,
    table,
    zipped,
    zstd,
)
from tests.layers.tars import inflate

FORMS: list[tuple[Callable[[bytes], bytes], Callable[..., Made]]] = [
    (zipped, starred),
    (zstd, chunked),
]
both = pytest.mark.parametrize(("compress", "make"), FORMS, ids=["estargz", "zstd:chunked"])
LIMITS = Limits(
    toc_bytes=64 * KIB,
    layer_members=200,
    layer_index_bytes=64 * KIB,
    layer_bytes=MIB,
    chunk_bytes=64 * KIB,
)


def usual(compress: Callable[[bytes], bytes]) -> Contents:
    """Entries of every kind."""
    contents = Contents(compress)
    contents.put("./", type="dir", mode=0o40755, modtime="2024-01-02T03:04:05Z")
    contents.put("d/", type="dir", mode=0o1777)
    contents.put("d/one", b"one", uid=1000, gid=42, mode=0o4755, xattrs={"user.a": "AP8="})
    contents.put("d/many", b"a" * 1000, b"b" * 500, b"c", modtime="2001-02-03T04:05:06.5+01:00")
    contents.put("d/empty")
    contents.put("d/link", type="symlink", linkName="../etc/é")
    contents.put("d/hard", type="hardlink", linkName="./d/one")
    contents.put("null", type="char", devMajor=1, devMinor=3)
    contents.put("disk", type="block", devMajor=8, devMinor=1)
    contents.put("pipe", type="fifo")
    return contents


def members(found: Toc | None) -> dict[bytes, LayerEntry]:
    assert found is not None
    return {member.path: member for member in found.entries}


@both
def test_entries_are_what_the_table_says(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    found = members(read(make(usual(compress))))
    assert [member.kind.value for member in found.values()] == list("ddfffl" + "hcbp")
    assert (found[b""].mode, found[b""].mtime_ns) == (0o755, 1_704_164_645 * 10**9)
    assert found[b"d"].mode == 0o1777
    one = found[b"d/one"]
    assert (one.mode, one.uid, one.gid, one.size, one.xattrs) == (
        0o4755,
        1000,
        42,
        3,
        ((b"user.a", b"\0\xff"),),
    )
    assert found[b"d/many"].mtime_ns == 981_169_506_500_000_000
    assert found[b"d/link"].link == "../etc/é".encode()
    assert found[b"d/hard"] == LayerEntry(b"d/hard", EntryKind.HARDLINK, 0o644, link=b"d/one")
    assert found[b"null"].rdev == os.makedev(1, 3)
    assert (found[b"d/empty"].size, found[b"d/empty"].extents) == (0, ())


@both
def test_each_chunk_is_a_span_that_gives_it(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    made = make(usual(compress))
    found = read(made)
    many = members(found)[b"d/many"]
    assert found is not None and [(extent.offset, extent.length) for extent in many.extents] == [
        (0, 1501)
    ]
    content = b""
    for extent in many.extents:
        for number in found.spans.numbers(extent.position, extent.position + extent.length):
            span = found.spans[number]
            plain = inflate(made.blob[span.start : span.stop])[: span.length]
            assert span.checksum.matches(plain)
            content += plain
    assert content == b"a" * 1000 + b"b" * 500 + b"c"


@both
def test_chunks_that_share_a_member_are_taken_out_of_it(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    contents = Contents(compress)
    contents.put("before", b"before")
    contents.put_together(one=b"1" * 3000, two=b"2", three=b"3" * 600)
    contents.put("after", b"after")
    made = make(contents)
    found = read(made)
    assert found is not None
    shown = {}
    for path, member in members(found).items():
        [extent] = member.extents
        [number] = found.spans.numbers(extent.position, extent.position + extent.length)
        span = found.spans[number]
        shown[path] = decode(found.spans.compression, span, made.blob[span.start : span.stop])
    assert shown == {
        b"before": b"before",
        b"one": b"1" * 3000,
        b"two": b"2",
        b"three": b"3" * 600,
        b"after": b"after",
    }
    first, one, two, three, last = found.spans
    assert first.start < one.start == two.start == three.start < last.start
    assert first.skip == last.skip == 0 < one.skip < two.skip < three.skip


@both
@pytest.mark.parametrize("inner", [512, 600, 3511, 4095])
def test_chunks_over_one_another_in_a_member_are_refused(
    compress: Callable[[bytes], bytes], make: Callable[..., Made], inner: int
) -> None:
    contents = Contents(compress)
    contents.put_together(one=b"1" * 3000, two=b"2" * 1000, three=b"3" * 600)
    contents.entries[1]["innerOffset"] = inner
    assert (read(make(contents)) is None) == (inner < 512 + 3000)
    contents.entries[1]["innerOffset"] = contents.entries[2]["innerOffset"]
    assert read(make(contents)) is None


def test_zeros_are_holes_that_nobody_fetches() -> None:
    contents = Contents(zstd)
    contents.put("f", b"x" * 10, bytes(5000), b"y")
    contents.entries[1]["chunkType"] = "zeros"
    found = read(chunked(contents))
    [file] = members(found).values()
    assert found is not None and len(found.spans) == 2
    assert [(extent.offset, extent.length) for extent in file.extents] == [(0, 10), (5010, 1)]


def test_a_file_of_one_chunk_may_have_its_digest_as_a_whole() -> None:
    contents = Contents(zstd)
    contents.put("f", b"content")
    contents.entries[0]["digest"] = contents.entries[0].pop("chunkDigest")
    assert len(members(read(chunked(contents)))[b"f"].extents) == 1


def test_landmarks_are_hidden_and_say_what_to_prefetch() -> None:
    contents = Contents(zipped)
    contents.put("first", b"1")
    contents.put(".prefetch.landmark", b"\x0f")
    place = contents.entries[-1]["offset"]
    contents.put("sub/.prefetch.landmark", b"a file of somebody's")
    found = read(starred(contents))
    assert set(members(found)) == {b"first", b"sub/.prefetch.landmark"}
    assert found is not None and found.prefetch == place
    contents = Contents(zipped)
    contents.put(".no.prefetch.landmark", b"\x0f")
    found = read(starred(contents))
    assert found is not None and (found.entries, found.prefetch) == ((), 0)


def test_older_annotations_and_footers_are_read() -> None:
    made = chunked(usual(zstd))
    older = {key.replace("io.github.", "io."): value for key, value in made.annotations.items()}
    assert members(read(replace(made, annotations=older)))
    made = starred(usual(zipped))
    body = made.blob[: -len(footer(0))]
    legacy = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x16\0" + footer(body.rindex(b"\x1f\x8b"))[16:]
    assert len(legacy) == 47
    assert members(read(replace(made, blob=body + legacy)))


def test_what_no_annotation_names_is_not_believed() -> None:
    made = starred(usual(zipped))
    assert TocFormats().ref({}) is None
    zeros = f"sha256:{'0' * 64}"
    nonsense = {"containerd.io/snapshot/stargz/toc.digest": "nonsense"}
    for each in (nonsense, {CHECKSUM: zeros}, {CHECKSUM: zeros, POSITION: "1:2:3:2"}):
        with pytest.raises(Malformed):
            TocFormats().ref(each)
    both = {**made.annotations, **chunked(usual(zstd)).annotations}
    assert (
        read(
            replace(
                chunked(usual(zstd)), annotations={**both, estargz.ANNOTATION: f"sha256:{'1' * 64}"}
            )
        )
        is None
    )


@both
def test_a_table_of_another_digest_is_refused(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    made = make(usual(compress))
    other = make(usual(compress), table([]))
    assert read(replace(made, blob=other.blob)) is None
    assert read(replace(made, blob=made.blob[:-1])) is None
    wrong = {
        key: value if ":" not in value or "sha256" not in value else f"sha512:{'0' * 128}"
        for key, value in made.annotations.items()
    }
    assert read(replace(made, annotations=wrong)) is None


@both
def test_a_hard_link_before_its_target_is_a_link_to_it(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    """containerd/stargz-snapshotter#181: files to prefetch were moved to the front without the
    targets of their links.
    """
    contents = Contents(compress)
    contents.put("h", type="hardlink", linkName="f")
    contents.put("f", b"content")
    contents.put("h2", type="hardlink", linkName="f")
    found = read(make(contents))
    assert found is not None
    assert [member.path for member in found.entries] == [b"f", b"h2", b"h"]
    assert shape(list(found.entries))["h"] == ("f", found.entries[0].mtime_ns)


@both
def test_a_table_without_entries_is_an_empty_layer(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    """containerd/stargz-snapshotter#2137."""
    found = read(make(Contents(compress)))
    assert found is not None
    assert (found.entries, found.size) == ((), 0)


@pytest.mark.parametrize("name", ["", "./", "/", "."])
@both
def test_the_root_may_have_any_of_its_names(
    compress: Callable[[bytes], bytes], make: Callable[..., Made], name: str
) -> None:
    """containers/storage#2191."""
    contents = Contents(compress)
    contents.put(name, type="dir", mode=0o711)
    contents.put("f", b"content")
    found = read(make(contents))
    assert found is not None
    assert (found.entries[0].path, found.entries[0].mode) == (b"", 0o711)


def lie(entries: list[Entry], path: str, **facts: object) -> list[Entry]:
    """The entries with changed members of one; None removes a member."""
    changed = [dict(entry) for entry in entries]
    entry = next(entry for entry in changed if entry["name"] == path and entry["type"] != "chunk")
    entry.update(facts)
    return [{key: value for key, value in entry.items() if value is not None} for entry in changed]


LIES: list[tuple[str, dict[str, object]]] = [
    ("d/one", {"offset": 1 << 40}),
    ("d/one", {"offset": -1}),
    ("d/one", {"offset": 1.5}),
    ("d/one", {"offset": True}),
    ("d/one", {"chunkDigest": None}),
    ("d/one", {"chunkDigest": "md5:1234"}),
    ("d/one", {"chunkDigest": f"sha512:{'0' * 128}"}),
    ("d/one", {"chunkOffset": 1}),
    ("d/one", {"chunkSize": 2}),
    ("d/one", {"chunkSize": 4}),
    ("d/one", {"endOffset": 1 << 40}),
    ("d/one", {"endOffset": 1}),
    ("d/one", {"innerOffset": -5}),
    ("d/one", {"innerOffset": 1 << 40}),
    ("d/one", {"type": "chunk"}),
    ("d/one", {"type": "socket"}),
    ("d/one", {"type": 3}),
    ("d/one", {"name": "d/\ufffd"}),
    ("d/one", {"name": "d/\0"}),
    ("d/one", {"name": "d/\ud800"}),
    ("d/one", {"name": ["d"]}),
    ("d/one", {"xattrs": {"user.a": "?"}}),
    ("d/one", {"xattrs": {"user.a": 1}}),
    ("d/one", {"xattrs": []}),
    ("d/one", {"modtime": "yesterday"}),
    ("d/one", {"modtime": "2024-02-30T00:00:00Z"}),
    ("d/one", {"chunkType": "ones"}),
    ("d/many", {"size": 1502}),
    ("d/many", {"size": 1500}),
    ("d/many", {"chunkSize": 0}),
    ("d/many", {"chunkSize": 999}),
    ("d/many", {"chunkDigest": None}),
    ("d/link", {"linkName": "\ufffd"}),
    ("null", {"devMajor": 1 << 20}),
    ("d/empty", {"size": 5}),
]


@both
@pytest.mark.parametrize(("path", "facts"), LIES, ids=[f"{path}-{facts}" for path, facts in LIES])
def test_an_entry_that_makes_no_sense_refuses_the_table(
    compress: Callable[[bytes], bytes],
    make: Callable[..., Made],
    path: str,
    facts: dict[str, object],
) -> None:
    contents = usual(compress)
    assert read(make(contents, table(contents.entries))) is not None
    assert read(make(contents, table(lie(contents.entries, path, **facts)))) is None


@both
def test_chunks_over_one_another_are_refused(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    contents = usual(compress)
    other = next(entry["offset"] for entry in contents.entries if entry["name"] == "d/many")
    assert read(make(contents, table(lie(contents.entries, "d/one", offset=other)))) is None


@both
@pytest.mark.parametrize(
    "toc",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":1}',
        b'{"entries":[]}',
        b'{"version":2,"entries":[]}',
        b'{"version":1,"entries":{}}',
        b'{"version":1,"entries":[1]}',
        b'{"version":1,"entries":[],"entries":[]}',
        b'{"version":1,"entries":[]} x',
        b'{"version":1,"entries":[',
        b'{"version":1,"entries":[{]}',
        b'{"version":1,"entries":' + b"[" * 30_000,
        b'{"version":1,"entries":[{"a":' + b"[" * 30_000,
        b'{"version":1,"entries":[],"a":"\xff"}',
        b'{1:1,"entries":[]}',
    ],
    ids=lambda toc: repr(toc[:40]),
)
def test_what_is_no_table_is_refused(
    compress: Callable[[bytes], bytes], make: Callable[..., Made], toc: bytes
) -> None:
    assert read(make(usual(compress), toc)) is None
    assert read(make(usual(compress), b' {"entries" : [ ] ,"version":1 , "x":[{}]}\n')) is not None


@both
def test_tables_that_pass_a_bound_are_refused(
    compress: Callable[[bytes], bytes], make: Callable[..., Made]
) -> None:
    def refused(contents: Contents) -> bool:
        return read(make(contents), LIMITS) is None and read(make(contents)) is not None

    many, long, huge, chunks = (Contents(compress) for _ in range(4))
    for number in range(201):
        many.put(str(number))
    for number in range(2):
        long.put("x" * 40_000 + str(number))
    huge.put("f", b"x" * (64 * KIB + 1))
    chunks.put("f", *[b"x"] * 201)
    assert all(refused(contents) for contents in (many, long, huge, chunks))
    # The table itself, which unpacks to more than its bound.
    assert read(make(Contents(compress), table([], more=" " * 2 * MIB)), LIMITS) is None


def test_places_outside_the_blob_are_refused() -> None:
    made = chunked(usual(zstd))
    for position in (
        f"{len(made.blob)}:5:5:1",
        f"0:5:{len(made.toc)}:1",
        f"5:{10**17}:5:1",
        "5:0:0:1",
    ):
        assert read(replace(made, annotations={**made.annotations, POSITION: position})) is None
    made = starred(usual(zipped))
    for place in (0, len(made.blob), len(made.blob) - 51, 1, 1 << 60):
        assert read(replace(made, blob=made.blob[:-51] + footer(place))) is None


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 1 << 66),
    st.sampled_from([0, 1, 513, 600]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.none(), max_size=1),
)
KEYS = st.sampled_from(
    [
        "type",
        "name",
        "size",
        "offset",
        "endOffset",
        "chunkOffset",
        "chunkSize",
        "chunkDigest",
        "digest",
        "chunkType",
        "linkName",
        "mode",
        "uid",
        "modtime",
        "xattrs",
        "devMajor",
        "innerOffset",
    ]
)


@both
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), KEYS, VALUES), max_size=4),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_any_table_is_refused_or_in_order(
    compress: Callable[[bytes], bytes],
    make: Callable[..., Made],
    changes: list[tuple[int, str, object]],
    twice: list[int],
) -> None:
    contents = usual(compress)
    entries = [dict(entry) for entry in contents.entries]
    for place, key, value in changes:
        entries[place % len(entries)][key] = value
    entries += [entries[place % len(entries)] for place in twice]
    made = make(contents, json.dumps({"version": 1, "entries": entries}).encode())
    in_order(read(made), made)


@both
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_a_layer_with_damage_is_refused_or_in_order(
    compress: Callable[[bytes], bytes], make: Callable[..., Made], changes: list[tuple[int, bytes]]
) -> None:
    made = make(usual(compress))
    blob = bytearray(made.blob)
    for place, value in changes:
        start = place % len(blob)
        blob[start : start + len(value)] = value
    in_order(read(replace(made, blob=bytes(blob))), made)
    # And with damage in the table itself, of which the digest is right.
    toc = bytearray(made.toc)
    for place, value in changes:
        toc[place % len(toc)] = value[0]
    in_order(read(make(usual(compress), bytes(toc))), made)


def in_order(found: Toc | None, made: Made) -> None:
    """The invariants of an accepted table."""
    if found is None:
        return
    end = 0
    for span in found.spans:
        assert span.position == end and 0 <= span.start < span.stop <= len(made.blob)
        end += span.length
    places = sorted((span.start, span.skip, span.skip + span.length) for span in found.spans)
    for (start, _, stop), (other, skip, _) in pairwise(places):
        assert start < other or stop <= skip
    assert end <= Limits().layer_bytes
    for member in found.entries:
        assert b"\0" not in member.path and not {b"", b".", b".."} & set(
            member.path.split(b"/") if member.path else []
        )
        assert 0 <= member.mode <= 0o7777 and member.size >= 0
        reached = 0
        for extent in member.extents:
            assert reached <= extent.offset and extent.length > 0
            assert found.spans.numbers(extent.position, extent.position + extent.length)
            reached = extent.offset + extent.length
        assert reached <= member.size


def test_the_annotation_is_that_of_the_specification() -> None:
    assert estargz.ANNOTATION == "containerd.io/snapshot/stargz/toc.digest"
