"""Directories that replace lower links, and whiteouts in them: the links' targets do not change."""

from __future__ import annotations

import itertools

import pytest

from ocifs.layers.index.entry import LayerEntry
from ocifs.layers.merge import apply as overlay
from ocifs.layers.merge.apply import merge
from ocifs.settings import Limits
from tests.layers.stacks import directory, file, hardlink, layer, merged, shape, symlink

USR = [directory("usr"), directory("usr/lib"), file("usr/lib/libc", 1), symlink("lib", "usr/lib")]
OPAQUE = ".wh..wh..opq"

# Below, what lies above, and the path that is to survive.
OVER_LINKS: dict[str, tuple[list[LayerEntry], list[LayerEntry], str]] = {
    "opaque": (USR, [directory("lib"), file(f"lib/{OPAQUE}")], "usr/lib/libc"),
    "whiteout": (USR, [directory("lib"), file("lib/.wh.libc")], "usr/lib/libc"),
    "absolute link": (
        [*USR, symlink("l", "/usr/lib")],
        [directory("l"), file(f"l/{OPAQUE}")],
        "usr/lib/libc",
    ),
    "link to the root": (
        [*USR, symlink("host", "/")],
        [directory("host"), file(f"host/{OPAQUE}")],
        "usr/lib/libc",
    ),
    "link to the place": (
        [*USR, symlink("usr/x", ".")],
        [directory("usr/x"), file("usr/x/.wh.lib")],
        "usr/lib/libc",
    ),
    "link to a link": (
        [*USR, symlink("l", "lib")],
        [directory("l"), file("l/.wh.libc")],
        "usr/lib/libc",
    ),
    "below the link": (
        [*USR, directory("usr/lib/a"), file("usr/lib/a/b")],
        [directory("lib"), directory("lib/a"), file(f"lib/a/{OPAQUE}")],
        "usr/lib/a/b",
    ),
    "by another way": (
        [*USR, symlink("here", ".")],
        [directory("lib"), file(f"here/lib/{OPAQUE}")],
        "usr/lib/libc",
    ),
    "directory by another way": (
        [*USR, symlink("here", ".")],
        [directory("here/lib"), file(f"lib/{OPAQUE}")],
        "usr/lib/libc",
    ),
}


@pytest.mark.parametrize("name", OVER_LINKS)
def test_whiteouts_in_a_directory_over_a_link_leave_its_target_alone(name: str) -> None:
    below, above, survivor = OVER_LINKS[name]
    for order in itertools.permutations(above):
        assert survivor in shape(below, list(order)), order


def test_a_whiteout_through_a_link_that_stays_reaches_its_target() -> None:
    assert "usr/lib/libc" not in shape(USR, [file("lib/.wh.libc")])
    assert "usr/lib/libc" not in shape(USR, [file(f"lib/{OPAQUE}")])


def test_what_is_in_a_directory_over_a_link_is_in_that_directory_whatever_the_order() -> None:
    """What overlayfs shows of the same upper directory."""
    for order in itertools.permutations(
        [directory("lib"), file("lib/mine", 2), file(f"lib/{OPAQUE}")]
    ):
        found = shape(USR, list(order))
        assert {
            path: found.get(path) for path in ("lib", "lib/mine", "usr/lib/mine", "usr/lib/libc")
        } == {
            "lib": ("d", 0),
            "lib/mine": ("f", 2),
            "usr/lib/mine": None,
            "usr/lib/libc": ("f", 1),
        }


def test_a_link_that_comes_back_leads_to_what_it_led_to() -> None:
    middle = [directory("lib"), file(f"lib/{OPAQUE}"), file("lib/mine", 2)]
    assert shape(USR, middle, [file(".wh.lib"), symlink("lib", "usr/lib")]) == shape(USR)


def test_a_directory_over_a_file_is_empty() -> None:
    assert shape([file("a", 1)], [directory("a"), file(f"a/{OPAQUE}"), file("a/b", 2)]) == {
        "a": ("d", 0),
        "a/b": ("f", 2),
    }


def test_a_hard_link_to_a_link_that_becomes_a_directory_leads_to_the_link() -> None:
    for order in itertools.permutations([directory("lib"), hardlink("old", "lib")]):
        assert shape(USR, list(order))["old"] == ("l", 0)


def test_a_whited_out_link_is_not_a_way_to_what_it_led_to() -> None:
    for order in itertools.permutations([file(".wh.lib"), file("lib/.wh.libc")]):
        assert "usr/lib/libc" in shape(USR, list(order))


def test_preparing_a_layer_walks_from_the_root_as_often_whatever_the_number_of_its_whiteouts() -> (
    None
):
    def walks(count: int) -> int:
        below = [directory("d"), *(directory(f"d/{n}") for n in range(count)), symlink("l", "d")]
        below += [file(f"d/{n}/old") for n in range(count)]
        above = [directory("d"), *(directory(f"d/{n}") for n in range(count))]
        above += [file(f"d/{n}/.wh.old") for n in range(count)] + [
            file(f"d/{n}/.wh.gone") for n in range(count)
        ]
        stack = _Counting([layer(*below), layer(*above)], Limits(), alone=False)
        for number, members in enumerate((below, above)):
            stack.apply(number, members, True)
        return stack.prepared

    assert walks(10) == walks(1000) == 0


class _Counting(overlay._Merger):
    """Counts the paths that are resolved before the entries of a layer are applied."""

    prepared = 0

    def _put(self, place: int, member: LayerEntry, removed: int | None) -> None:
        before = self.prepared
        super()._put(place, member, removed)
        self.prepared = before

    def find(self, path: bytes, *, follow: bool = False) -> int | None:
        self.prepared += 1
        return super().find(path, follow=follow)


def test_hard_links_to_hard_links_of_a_layer_alone_lead_to_the_same_name() -> None:
    found = merged(
        [hardlink("h", "a/f"), hardlink("b/c/h2", "h"), hardlink("b/h3", "b/c/h2")], alone=True
    )
    assert {path: item.entry.link for path, item in found.items() if item.entry.link} == {
        "h": b"a/f",
        "b/c/h2": b"../../a/f",
        "b/h3": b"../a/f",
    }


def test_a_stack_of_the_same_layer_twice_keeps_the_links_of_each() -> None:
    twice = [file("f", 1), hardlink("f2", "f")]
    found = merged(twice, [hardlink("g", "f"), hardlink("g2", "f")], twice)
    assert found["f"] == found["f2"] != found["g"] == found["g2"]
    assert {path: item.links for path, item in found.items()} == dict.fromkeys(
        ("f", "f2", "g", "g2"), 2
    )


def test_many_directories_over_links_are_prepared_in_any_order_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parents that were dropped from memory are resolved again."""
    below = [directory("x"), file("x/f", 1), *(symlink(f"l{n}", "x") for n in range(20))]
    above = [
        entry
        for n in range(20)
        for entry in (directory(f"l{n}"), directory(f"l{n}/d"), file(f"l{n}/.wh.f"))
    ]
    whole = merge([layer(*below), layer(*above)], Limits())
    monkeypatch.setattr(overlay, "_PARENTS", 1)
    assert dict(merge([layer(*below), layer(*above)], Limits()).links) == dict(whole.links)
    assert shape(below, above)["x/f"] == ("f", 1)


def test_whiteouts_far_down_are_applied_like_others() -> None:
    deep = "/".join("d" * 300)
    assert shape([file(f"{deep}/a", 1), file(f"{deep}/b", 1)], [file(f"{deep}/.wh.a")])[
        f"{deep}/b"
    ] == ("f", 1)
    assert f"{deep}/a" not in shape([file(f"{deep}/a", 1)], [file(f"{deep}/.wh.a")])
