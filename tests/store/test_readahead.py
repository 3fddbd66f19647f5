"""How much is fetched at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocifs.settings import KIB, MIB
from ocifs.store.readahead import FIRST, LARGEST, READERS, ReadAhead


def test_a_reader_who_reads_on_gets_more_and_more_up_to_a_bound() -> None:
    readers, windows = ReadAhead(), []
    for number in range(12):
        windows.append(readers.stream(number * 128 * KIB, 128 * KIB).grow())
    assert windows[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert max(windows) == windows[-1] == LARGEST


def test_those_who_jump_about_get_little() -> None:
    readers = ReadAhead()
    assert [readers.stream(number * 100 * MIB, 4096).grow() for number in range(20)] == [FIRST] * 20


def test_readers_of_one_blob_do_not_disturb_each_other() -> None:
    readers = ReadAhead()
    for number in range(4):
        one = readers.stream(number * 128 * KIB, 128 * KIB)
        other = readers.stream(500 * MIB + number * 128 * KIB, 128 * KIB)
        assert one is not other
        assert one.grow() == other.grow() == FIRST << number


def test_requests_of_one_reader_may_come_out_of_order() -> None:
    readers = ReadAhead()
    for number in range(3):
        readers.stream(number * 128 * KIB, 128 * KIB).grow()
    later = readers.stream(4 * 128 * KIB, 128 * KIB)
    assert readers.stream(3 * 128 * KIB, 128 * KIB) is later


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, MIB)), max_size=200))
def test_windows_and_readers_are_bounded(reads: list[tuple[int, int]]) -> None:
    readers = ReadAhead()
    for offset, length in reads:
        stream = readers.stream(offset, length)
        assert FIRST <= stream.grow() <= LARGEST
        assert stream.end >= offset + length
    assert len(readers._streams) <= READERS
