"""Which number the kernel has for which node."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.fuse import inodes as module
from ocifs.fuse.inodes import ROOT, Handles, Inode, Inodes
from ocifs.tree.base import TextFile
from ocifs.tree.node import InodeSlot
from ocifs.tree.static import StaticDirectory


def root() -> StaticDirectory:
    return StaticDirectory("root", [])


def node(key: object) -> TextFile:
    return TextFile(key, b"")  # type: ignore[arg-type]


STEPS = st.lists(
    st.tuples(st.sampled_from(["remember", "forget", "forget all"]), st.integers(0, 7)), max_size=60
)


@settings(deadline=None)
@given(STEPS)
def test_a_node_is_known_as_long_as_the_kernel_was_told_more_often_than_it_forgot(
    steps: list[tuple[str, int]],
) -> None:
    inodes, told = Inodes(root()), Counter[int]()
    numbers: dict[int, Inode] = {}
    for step, key in steps:
        if step == "remember":
            number = inodes.add_lookup(node(key))
            assert numbers.setdefault(key, number) == number
            told[key] += 1
        elif key in numbers:
            count = 1 if step == "forget" else told[key]
            inodes.forget(numbers[key], count)
            told[key] = max(0, told[key] - count)
        for known, number in numbers.items():
            found = inodes.node(number)
            assert (found is not None) == (told[known] > 0)
            assert found is None or found.key == known
        assert len(inodes) == 1 + sum(1 for count in told.values() if count)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.integers()), unique=True, max_size=50))
def test_different_keys_have_different_numbers_that_a_signed_type_holds(
    keys: list[tuple[str, int]],
) -> None:
    inodes = Inodes(root())
    numbers = [inodes.add_lookup(node(key)) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert all(16 <= number < 2**63 for number in numbers)


def test_keys_whose_hashes_collide_are_still_different_inodes(monkeypatch) -> None:
    monkeypatch.setattr(module, "_hash", lambda key: 3)
    inodes = Inodes(root())
    numbers = [inodes.add_lookup(node(key)) for key in range(5)]
    assert len(set(numbers)) == 5
    assert ROOT not in numbers
    for number, key in zip(numbers, range(5), strict=True):
        found = inodes.node(number)
        assert found is not None
        assert found.key == key


def test_a_number_is_the_same_in_every_mount_and_whatever_was_looked_up_before() -> None:
    one, other = Inodes(root()), Inodes(root())
    other.add_lookup(node("something else"))
    assert one.add_lookup(node(("a", 1))) == other.add_lookup(node(("a", 1)))


def test_a_number_that_is_only_shown_is_that_which_is_remembered_later() -> None:
    inodes = Inodes(root())
    shown = inodes.number(node("x"))
    assert inodes.node(shown) is None
    assert inodes.add_lookup(node("x")) == shown


def test_the_root_is_never_forgotten() -> None:
    inodes = Inodes(root())
    inodes.forget(ROOT, 10**9)
    assert inodes.node(ROOT) is not None


def test_what_is_not_known_is_forgotten_without_harm() -> None:
    inodes = Inodes(root())
    inodes.forget(Inode(12345), 1)
    assert len(inodes) == 1


def test_handles_are_never_used_twice() -> None:
    handles: Handles[str] = Handles()
    first = handles.add("a")
    handles.close(first)
    second = handles.add("b")
    assert first != second
    assert (handles.get(first), handles.get(second), len(handles)) == (None, "b", 1)
    handles.close(first)


class Crowded(TextFile):
    __slots__ = ("slot",)


@dataclass(frozen=True)
class Many:
    """A crowd, whose nodes say where they stand."""

    key: object
    size: int = 8

    def node(self, place: int) -> Crowded:
        made = Crowded((self.key, place), b"")
        made.slot = InodeSlot(self, place)  # type: ignore[arg-type]  # the key of a test may be anything
        return made


@settings(deadline=None)
@given(STEPS, st.integers(1, 3))
def test_nodes_of_crowds_are_known_just_as_long_and_never_kept(
    steps: list[tuple[str, int]], crowds: int
) -> None:
    inodes, told = Inodes(root()), Counter[int]()
    numbers: dict[int, Inode] = {}
    for step, key in steps:
        made = Many(key % crowds).node(key)
        if step == "remember":
            shown = inodes.number(made)
            assert inodes.add_lookup(made) == shown
            assert numbers.setdefault(key, shown) == shown
            told[key] += 1
        elif key in numbers:
            count = 1 if step == "forget" else told[key]
            inodes.forget(numbers[key], count)
            told[key] = max(0, told[key] - count)
        for known, number in numbers.items():
            found = inodes.node(number)
            assert (found is not None) == (told[known] > 0)
            assert found is None or (found.key == (known % crowds, known) and found is not made)
        assert len(inodes) == 1 + sum(1 for count in told.values() if count)
    assert len(set(numbers.values())) == len(numbers)
    assert all(2**62 <= number < 2**63 for number in numbers.values())


def test_crowds_whose_hashes_collide_are_still_different(monkeypatch) -> None:
    monkeypatch.setattr(module, "_hash", lambda key: 3)
    inodes = Inodes(root())
    numbers = [inodes.add_lookup(Many(key).node(1)) for key in "abc"]
    assert len(set(numbers)) == 3
    assert [inodes.node(number).key for number in numbers] == [(key, 1) for key in "abc"]  # type: ignore[union-attr]
    assert inodes.add_lookup(node("a")) not in numbers


def test_numbers_that_no_crowd_has_are_nobody() -> None:
    inodes = Inodes(root())
    number = inodes.add_lookup(Many("a").node(7))
    for strange in (number + 1, number + (1 << 40), number + 1000):
        assert inodes.node(Inode(strange)) is None
        inodes.forget(Inode(strange), 1)
    assert inodes.node(number) is not None
