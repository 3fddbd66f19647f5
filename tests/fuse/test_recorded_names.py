"""The names that are recorded for invalidation, against a simple model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.fuse import kernel_names
from ocifs.fuse.inodes import Inode
from ocifs.fuse.kernel_names import KernelNames

MOST = 10
STEPS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 12), st.sampled_from([0.0, 1.0, 5.0, 60.0]))
    | st.floats(0.1, 30)
)


@given(STEPS)
def test_the_newest_names_that_the_kernel_may_use_are_returned(
    steps: list[tuple[int, int, float] | float],
) -> None:
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_names, "MAX_NAMES", MOST)
        names = KernelNames(lambda: now)
        recorded: dict[tuple[int, bytes], float] = {}
        for step in steps:
            if isinstance(step, float):
                now += step
                continue
            parent, number, lifetime = step
            names.record(Inode(parent), b"%d" % number, lifetime)
            if lifetime:
                recorded.pop((parent, b"%d" % number), None)
                recorded[parent, b"%d" % number] = now + lifetime
            assert len(names) <= MOST
        taken = [(parent, name) for parent, found in names.take().items() for name in found]
        # More names than the bound are recorded in the order of their ages.
        usable = [key for key, until in [*recorded.items()][-MOST:] if until > now]
        assert sorted(taken) == sorted(usable)
        assert not names.take()


def test_names_that_the_kernel_no_longer_uses_are_dropped_as_others_come() -> None:
    now = 0.0
    names = KernelNames(lambda: now)
    for number in range(5000):
        names.record(Inode(1), b"%d" % number, 1)
    assert len(names) == 5000
    now = 2.0
    for number in range(2500):
        names.record(Inode(2), b"%d" % number, 1)
    assert len(names) == 2500
