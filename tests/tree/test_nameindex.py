"""The index of repositories against a model that looks at every name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocifs.tree.name_index import NameIndex

COMPONENTS = st.sampled_from(["a", "b", "a-b", "a.b", "a0", "ab"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join)


@given(st.lists(NAMES), st.lists(NAMES), NAMES)
def test_it_has_what_is_listed_and_the_namespaces_above(
    first: list[str], more: list[str], asked: str
) -> None:
    index = NameIndex(first)
    for name in more:
        index.add(name)
    names = {*first, *more}
    assert len(index) == len(names)
    assert index.has_repository(asked) == (asked in names)
    assert index.has_name(asked) == any(
        name == asked or name.startswith(f"{asked}/") for name in names
    )
    for namespace in ("", asked):
        prefix = f"{namespace}/" if namespace else ""
        below = {name[len(prefix) :].partition("/")[0] for name in names if name.startswith(prefix)}
        children = list(index.children(namespace))
        assert len(children) == len(set(children))
        assert set(children) == below - {""}


def test_a_layouts_one_repository_has_no_name() -> None:
    index = NameIndex([""])
    assert index.has_repository("")
    assert list(index.children("")) == []


def test_children_cost_what_is_shown_and_not_what_is_below() -> None:
    """Counted by the comparisons of names."""
    compared = 0

    class Counted(str):
        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            nonlocal compared
            compared += 1
            return str.__lt__(self, other)

    index = NameIndex()
    index._keys = sorted(f"n{top}\0{number:05d}" for top in range(10) for number in range(10_000))
    index._keys = [Counted(key) for key in index._keys]
    assert len(list(index.children(""))) == 10
    assert compared < 1000
