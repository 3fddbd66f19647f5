"""Merging of layers: corners by hand, everything else against a model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.merge import apply as overlay
from ocifs.layers.merge import builder as growing
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import MergedTree, decode, encode
from ocifs.settings import Limits
from tests.layers.stacks import directory, file, hardlink, items, layer, merged, shape, symlink

D = ("d", 0)


def test_a_whiteout_takes_the_lower_name_and_is_never_seen() -> None:
    assert shape([file("a"), file("b")], [file(".wh.a")]) == {"b": ("f", 0)}


@pytest.mark.parametrize(
    "mark", [hardlink(".wh.a", "a"), hardlink(".wh.a", "b"), symlink(".wh.a", "b")]
)
def test_a_whiteout_that_is_stored_as_a_link_is_one(mark: LayerEntry) -> None:
    """Some builders store equal files once, also empty ones."""
    assert shape([file("a"), file("b")], [mark]) == {"b": ("f", 0)}
    assert set(merged([file("b"), mark], alone=True)) == {"b"}


@pytest.mark.parametrize("turn", [1, -1])
def test_a_whiteout_spares_its_own_layer_in_either_order(turn: int) -> None:
    upper = [file(".wh.a"), file("a", 2)][::turn]
    assert shape([file("a", 1)], upper) == {"a": ("f", 2)}


@pytest.mark.parametrize("turn", [1, -1])
def test_an_opaque_directory_hides_what_is_below_and_nothing_beside(turn: int) -> None:
    upper = [directory("d"), *[file("d/.wh..wh..opq"), file("d/new", 2)][::turn]]
    assert shape([directory("d"), file("d/old"), file("e")], upper) == {
        "d": D,
        "d/new": ("f", 2),
        "e": ("f", 0),
    }


@pytest.mark.parametrize("path", [".wh.", "d/.wh.", "none/.wh."])
def test_a_whiteout_without_a_name_is_an_error(path: str) -> None:
    """layer.md, "Whiteouts". It would be a whiteout of its own directory."""
    for layers in ([[file("a")], [file(path)]], [[file("a"), file(path)]]):
        with pytest.raises(Malformed, match="without a name"):
            merged(*layers)
    assert path in merged([file(path)], markers=False)


def test_whiteouts_of_nothing_do_nothing() -> None:
    upper = [
        file(".wh.none"),
        file("none/.wh.x"),
        file(".wh..wh..opq/x"),
        file("a/.wh.b"),
        file(".wh..."),
    ]
    assert shape([file("a")], upper) == {"a": ("f", 0)}


def test_a_deleted_directory_comes_back_empty() -> None:
    assert shape([file("d/x")], [file(".wh.d"), directory("d")]) == {"d": D}


def test_a_file_becomes_a_directory_and_back() -> None:
    assert shape([file("a")], [directory("a"), file("a/b")], [file("a", 3)]) == {"a": ("f", 3)}
    assert shape([file("a")], [file("a/b")]) == {"a": D, "a/b": ("f", 0)}


def test_a_directory_over_a_directory_keeps_the_children_and_takes_the_attributes() -> None:
    found = merged([directory("d", 0o700), file("d/x")], [directory("d", 0o1777)])
    assert found["d"].entry.mode == 0o1777
    assert set(found) == {"d", "d/x"}


def test_whiteouts_behind_a_link_that_replaces_their_directory_leave_its_target_alone() -> None:
    """How umoci writes a directory that became a link."""
    upper = [symlink("email", "asyncio"), file("email/.wh.x"), file("email/.wh.y")]
    found = shape(
        [
            directory("asyncio"),
            file("asyncio/x"),
            directory("email"),
            file("email/x"),
            file("email/y"),
        ],
        upper,
    )
    assert found == {"asyncio": D, "asyncio/x": ("f", 0), "email": ("l", 0)}


def test_implied_parents_are_0755() -> None:
    assert merged([file("a/b/c")])["a/b"].entry.mode == 0o755


def test_the_last_of_repeated_entries_holds() -> None:
    assert shape([file("a", 1), file("a", 2)]) == {"a": ("f", 2)}


def test_parents_that_are_links_are_followed_within_the_root() -> None:
    base = [
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("up", "../../../usr"),
        symlink("abs", "/usr/lib"),
    ]
    found = shape(base, [file("lib/a"), file("up/b"), file("abs/c"), file("abs/.wh.none")])
    assert {"usr/lib/a", "usr/b", "usr/lib/c"} <= set(found)
    assert found["lib"][0] == "l"
    assert "usr/lib/a" not in shape(base, [file("lib/a")], [file("abs/.wh.a")])


def test_an_entry_may_change_where_its_own_parent_leads() -> None:
    way = [directory("d"), directory("x"), directory("x/y"), symlink("s", "d/..")]
    found = shape([*way, symlink("s/d", "x/y"), file("s/e")])
    assert (found["d"][0], found["x/e"], "e" in found) == ("l", ("f", 0), False)


def test_a_directory_takes_the_place_of_a_link() -> None:
    assert shape([directory("x"), symlink("l", "x")], [directory("l"), file("l/a")]).keys() == {
        "x",
        "l",
        "l/a",
    }


def test_a_parent_behind_a_link_to_nothing_is_made_where_the_link_leads() -> None:
    assert "var/run/x" in shape([symlink("run", "var/run")], [file("run/x")])


def test_links_in_circles_are_an_error() -> None:
    with pytest.raises(Malformed, match="loop"):
        merged([symlink("a", "b"), symlink("b", "a")], [file("a/x")])


def test_hard_links_share_over_layers_and_survive_their_target() -> None:
    found = merged([file("a", 1)], [hardlink("d/b", "a")], [file(".wh.a")])
    assert set(found) == {"d", "d/b"}
    assert (found["d/b"].links, found["d/b"].layer) == (1, 0)
    found = merged([file("a", 1)], [hardlink("b", "a"), hardlink("c", "b")])
    assert found["a"] == found["b"] == found["c"]
    assert found["a"].links == 3


@pytest.mark.parametrize("turn", [1, -1])
def test_a_hard_link_to_what_its_own_layer_deletes_is_kept(turn: int) -> None:
    assert shape([file("a", 1)], [hardlink("b", "a"), file(".wh.a")][::turn]) == {"b": ("f", 1)}


def test_a_hard_link_to_nothing_is_an_error_and_in_a_layer_alone_a_link_that_says_where_to() -> (
    None
):
    with pytest.raises(Malformed, match="hard link"):
        merged([file("x")], [hardlink("b", "a")])
    assert merged([hardlink("d/b", "a/x")], alone=True)["d/b"].entry.link == b"../a/x"


def test_a_hard_link_to_a_directory_is_an_error() -> None:
    with pytest.raises(Malformed, match="a directory"):
        merged([directory("a"), hardlink("b", "a")])


def test_what_aufs_kept_is_hidden_and_links_into_it_hold() -> None:
    lower = [
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/7.8", 5),
        file(".wh..wh.aufs"),
        hardlink("a", ".wh..wh.plnk/7.8"),
        hardlink("b", ".wh..wh.plnk/7.8"),
    ]
    found = merged(lower)
    assert set(found) == {"a", "b"}
    assert found["a"] == found["b"]
    assert found["a"].entry.mtime_ns == 5


def test_without_markers_every_name_is_a_name() -> None:
    assert set(merged([file(".wh.a"), file("a")], markers=False)) == {".wh.a", "a"}


def test_links_of_directories_count_their_directories() -> None:
    found = merged([directory("d"), directory("d/a"), directory("d/b"), file("d/f")])
    assert (found["d"].links, found["d/a"].links, found["d/f"].links) == (4, 2, 1)


def test_the_root_has_the_attributes_of_its_topmost_entry() -> None:
    root = merge(
        [layer(directory("", 0o700)), layer(directory("", 0o711)), layer(file("a"))], Limits()
    ).root
    assert (root.entry.mode, root.layer) == (0o711, 1)


def test_paths_that_imply_too_many_directories_meet_a_bound() -> None:
    with pytest.raises(LimitExceeded, match="implied_directories"):
        merge([layer(file("a/" * 100 + "b"))], Limits(implied_directories=99))


# A model: a flat dictionary from path to kind and time, applied by the letter of the specification,
# without links.

_NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "a/b/c", "b/a", "b/c", "a/b/c/d"])


def _entries(number: int) -> st.SearchStrategy[list[LayerEntry]]:
    def marked(path: str, prefix: str) -> str:
        parent, _, name = path.rpartition("/")
        return f"{parent}/{prefix}{name}" if parent else f"{prefix}{name}"

    one = st.one_of(
        _NAMES.map(lambda path: file(path, number)),
        _NAMES.map(lambda path: directory(path, 0o700 + number)),
        _NAMES.map(lambda path: file(marked(path, ".wh."))),
        _NAMES.map(lambda path: file(f"{path}/.wh..wh..opq")),
    )
    return st.lists(one, max_size=6)


def _model(layers: list[list[LayerEntry]]) -> dict[str, tuple[str, int]]:
    tree: dict[str, tuple[str, int]] = {}

    def remove(path: str, *, itself: bool = True) -> None:
        for other in [p for p in tree if p.startswith(f"{path}/") or (itself and p == path)]:
            del tree[other]

    for members in layers:
        for member in members:
            parent, _, name = member.path.decode().rpartition("/")
            if name == ".wh..wh..opq":
                remove(parent, itself=False)
            elif name.startswith(".wh."):
                remove(f"{parent}/{name[4:]}" if parent else name[4:])
        for member in members:
            path = member.path.decode()
            if "/.wh." in f"/{path}":
                continue
            parts = path.split("/")
            for depth in range(1, len(parts)):
                above = "/".join(parts[:depth])
                if tree.get(above, ("", 0))[0] != "d":
                    remove(above)
                    tree[above] = ("d", 0o755)
            is_directory = member.kind is EntryKind.DIRECTORY
            if not (is_directory and tree.get(path, ("", 0))[0] == "d"):
                remove(path)
            tree[path] = ("d", member.mode) if is_directory else ("f", member.mtime_ns)
    return tree


@given(st.tuples(_entries(1), _entries(2), _entries(3)))
def test_any_stack_is_what_the_model_says(layers: tuple[list[LayerEntry], ...]) -> None:
    found = merged(*layers)
    ours = {
        path: ("d", item.entry.mode) if item.children is not None else ("f", item.entry.mtime_ns)
        for path, item in found.items()
    }
    assert ours == _model(list(layers))


@given(st.tuples(_entries(1), _entries(2), _entries(3)))
def test_packing_on_the_way_and_on_the_shelf_changes_nothing(
    layers: tuple[list[LayerEntry], ...],
) -> None:
    stack = [layer(*members) for members in layers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "OPEN", 0)
        patch.setattr(overlay, "MANY", 0)
        tree = merge(stack, Limits())
        patch.setattr(growing, "OPEN", 1)
        patch.setattr(overlay, "MANY", 1)
        assert items_of(merge(stack, Limits())) == items_of(tree)
    assert items_of(merge(stack, Limits())) == items_of(tree)
    kept = decode(encode(tree), tree.layers)
    assert kept is not None
    assert items_of(kept) == items_of(tree)


def items_of(tree: MergedTree) -> dict[str, tuple[object, ...]]:
    found = items(tree).items()
    return {path: (each.entry, each.layer, each.number, each.links) for path, each in found}


def test_a_kept_tree_that_is_damaged_or_of_other_layers_is_none() -> None:
    tree = merge([layer(file("a/b"), file("c"), hardlink("d", "c"))], Limits())
    good = encode(tree)
    assert decode(good, tree.layers) is not None
    assert decode(good, [*tree.layers, layer()]) is None
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 4
        assert decode(bytes(bad), tree.layers) is None
    for bad_bytes in (b"", b"{}\n", good[:-1], b"null\n" + good):
        assert decode(bad_bytes, tree.layers) is None


@given(st.tuples(_entries(1), _entries(2)), st.randoms())
def test_where_whiteouts_stand_in_their_layer_changes_nothing(
    layers: tuple[list[LayerEntry], ...], dice: random.Random
) -> None:
    lower, upper = layers
    marks = [member for member in upper if b".wh." in member.path]
    rest = [member for member in upper if b".wh." not in member.path]
    mixed = list(rest)
    for mark in marks:
        mixed.insert(dice.randint(0, len(mixed)), mark)
    assert shape(lower, mixed) == shape(lower, marks + rest)
