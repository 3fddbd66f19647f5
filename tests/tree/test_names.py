"""Names from strangers: reversible, inside their directory, each once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocifs.filenames import (
    MAX_DEPTH,
    MAX_NAME,
    mangle,
    split_path,
    to_bytes,
    unique,
    unique_paths,
    unmangle,
)

NASTY = st.lists(
    st.sampled_from(
        [
            b"/",
            b"\0",
            b".",
            b"..",
            b"%",
            b"2",
            b"F",
            b"a",
            b"\xff",
            b"\xc3\xa9",
            b"~2",
            b".tar.gz",
            b"\n",
        ]
    ),
    max_size=30,
).map(b"".join)


@pytest.mark.parametrize(
    ("name", "mangled"),
    [
        (b"a/b", b"a%2Fb"),
        (b"a\0b", b"a%00b"),
        (b"", b"%"),
        (b".", b"%2E"),
        (b"..", b"%2E%2E"),
        (b"...", b"..."),
        (b".hidden", b".hidden"),
        (b"%", b"%25"),
        (b"100%", b"100%"),
        (b"100%.txt", b"100%.txt"),
        (b"a%2Fb", b"a%252Fb"),
        (b"a%zzb", b"a%zzb"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"io.cncf.notary.x509chain.thumbprint#S256", b"io.cncf.notary.x509chain.thumbprint#S256"),
        (b"containerd.io/snapshot/nydus-blob", b"containerd.io%2Fsnapshot%2Fnydus-blob"),
    ],
)
def test_the_rule_by_example(name: bytes, mangled: bytes) -> None:
    assert mangle(name) == mangled
    assert unmangle(mangled) == name


@given(NASTY | st.binary(max_size=80))
@example(b"%/")
@example(b"%2/")
@example(b"%%2F")
def test_a_short_name_comes_back(name: bytes) -> None:
    assert unmangle(mangle(name)) == name


@given(st.binary(max_size=600) | st.lists(NASTY, max_size=20).map(b"".join))
def test_a_mangled_name_is_one_component_of_bounded_length(name: bytes) -> None:
    mangled = mangle(name)
    assert 0 < len(mangled) <= MAX_NAME
    assert b"/" not in mangled
    assert b"\0" not in mangled
    assert mangled not in (b".", b"..")


@given(st.sets(NASTY | st.binary(max_size=6)))
def test_different_names_stay_different(names: set[bytes]) -> None:
    assert len({mangle(name) for name in names}) == len(names)


def test_an_over_long_name_keeps_its_beginning_and_extension_and_differs_from_its_neighbour() -> (
    None
):
    one, two = (mangle(b"a" * 300 + tail + b".tar.gz") for tail in (b"1", b"2"))
    assert len(one) == MAX_NAME
    assert one.startswith(b"a" * 200)
    assert one.endswith(b".tar.gz")
    assert one != two
    assert mangle(b"a" * MAX_NAME) == b"a" * MAX_NAME


def test_shortening_leaves_no_half_character() -> None:
    for lead in range(4):
        mangle(b"x" * lead + "é€😀".encode() * 60).decode()


@given(st.lists(NASTY | st.sampled_from([b"a", b"a~2", b"a.txt", b"a~2.txt"])))
def test_unique_names_are_unique_in_order_and_the_first_keeps_its_name(
    names: Sequence[bytes],
) -> None:
    result = unique([mangle(name) for name in names])
    assert len(result) == len(names)
    assert len(set(result)) == len(result)
    first = {}
    for name, chosen in zip(names, result, strict=True):
        assert first.setdefault(mangle(name), chosen) == mangle(name)
        assert len(chosen) <= MAX_NAME


def test_repeated_names_are_numbered_before_their_extension() -> None:
    assert unique([b"a.tar.gz", b"a.tar.gz", b"a.tar.gz", b"LICENSE", b"LICENSE"]) == [
        b"a.tar.gz",
        b"a~2.tar.gz",
        b"a~3.tar.gz",
        b"LICENSE",
        b"LICENSE~2",
    ]


def test_a_number_never_takes_a_name_that_is_there_already() -> None:
    assert unique([b"a", b"a", b"a~2"]) == [b"a", b"a~3", b"a~2"]


def test_a_repeated_name_of_full_length_stays_in_bounds() -> None:
    result = unique([b"b" * MAX_NAME] * 12)
    assert len(set(result)) == 12
    assert max(map(len, result)) == MAX_NAME


@pytest.mark.parametrize(
    ("title", "parts"),
    [
        ("a/b.txt", (b"a", b"b.txt")),
        ("/etc/passwd", (b"etc", b"passwd")),
        ("../../x", (b"%2E%2E", b"%2E%2E", b"x")),
        ("./a/./b/", (b"a", b"b")),
        (".", ()),
        ("", ()),
        ("/", ()),
        ("..", (b"%2E%2E",)),
        (".hidden/x", (b".hidden", b"x")),
        ("a\0b", (b"a%00b",)),
        ("\ud800", (b"\xed\xa0\x80",)),
        (b"\xff/x", (b"\xff", b"x")),
    ],
)
def test_titles_with_directories_are_relative_and_stay_inside(
    title: str | bytes, parts: tuple[bytes, ...]
) -> None:
    assert split_path(title) == parts


@given(
    st.text()
    | st.lists(st.sampled_from(("..", ".", "", "a", "%2E%2E", "\0", "...")), min_size=1).map(
        "/".join
    )
)
def test_no_title_leads_outside(title: str) -> None:
    for part in split_path(title):
        assert part not in (b"", b".", b"..")
        assert b"/" not in part
        assert b"\0" not in part
    assert to_bytes(title) is not None


def test_a_title_of_a_million_directories_is_bounded() -> None:
    parts = split_path("a/" * 1_000_000)
    assert len(parts) == MAX_DEPTH
    assert MAX_NAME - 2 <= len(parts[-1]) <= MAX_NAME  # no half of `%2F` is kept


def test_a_file_gives_way_to_a_directory_of_its_name() -> None:
    assert unique_paths([(b"a",), (b"a", b"b"), (b"a", b"b"), (b"a~2",), ()]) == [
        (b"a~3",),
        (b"a", b"b"),
        (b"a", b"b~2"),
        (b"a~2",),
        (),
    ]


@given(
    st.lists(
        st.lists(st.sampled_from([b"a", b"b", b"a~2", b"a~3"]), min_size=1, max_size=3).map(tuple),
        max_size=12,
    )
)
def test_unique_paths_make_a_tree(paths: list[tuple[bytes, ...]]) -> None:
    result = unique_paths(paths)
    assert len(set(result)) == len(result) == len(paths)
    directories = {path[:depth] for path in result for depth in range(1, len(path))}
    assert directories.isdisjoint(result)
    assert [path[:-1] for path in result] == [path[:-1] for path in paths]
