"""How much is fetched at a time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ocifs.settings import KIB, MIB
from ocifs.store.blobs.readahead import (
    FIRST,
    LARGEST,
    PART,
    READERS,
    SLACK,
    ReadAhead,
    ReaderState,
    SourceSpeed,
)


def read_on(readers: ReadAhead, worth: int, total: int, start: int = 0) -> list[int]:
    """The windows of a sequential reader, which gets the next one when it has read the last."""
    windows, here = [], 0
    for offset in range(0, total, 128 * KIB):
        stream = readers.reader(start + offset, 128 * KIB)
        if offset >= here:
            windows.append(stream.grow(worth))
            here += windows[-1]
    return windows


def test_windows_of_a_sequential_reader_double_up_to_a_bound_if_requests_are_slow() -> None:
    windows = read_on(ReadAhead(), LARGEST, 1024 * MIB)
    assert windows[:11] == [FIRST << number for number in range(11)]
    assert max(windows) == windows[-1] == LARGEST


def test_where_bytes_are_dear_it_gets_a_part_of_what_it_has_read() -> None:
    windows = read_on(ReadAhead(), 0, 1024 * MIB)
    assert windows[:3] == [FIRST] * 3
    for number, window in enumerate(windows):
        assert window <= max(FIRST, sum(windows[:number]) // PART + 128 * KIB)
    assert max(windows) == LARGEST
    assert len(windows) < 40


def test_who_says_how_far_it_reads_gets_that_up_to_a_bound() -> None:
    readers = ReadAhead()
    assert readers.reader(5 * MIB, MIB, 50 * MIB).grow(0) == 45 * MIB
    assert readers.reader(1000 * MIB, MIB, 5000 * MIB).grow(0) == LARGEST
    assert readers.reader(10 * MIB, MIB, 9 * MIB).grow(0) >= FIRST


def test_those_who_jump_about_get_little() -> None:
    readers = ReadAhead()
    assert [readers.reader(number * 100 * MIB, 4096).grow(LARGEST) for number in range(20)] == [
        FIRST
    ] * 20


def test_those_who_leave_half_of_it_out_get_less_again() -> None:
    readers = ReadAhead()
    for number in range(64):  # from end to end, 8 MiB of it
        readers.reader(number * 128 * KIB, 128 * KIB).grow(LARGEST)
    windows = [
        readers.reader(offset, 100 * KIB).grow(LARGEST)
        for offset in range(8 * MIB, 40 * MIB, 256 * KIB)
    ]
    assert windows[0] > MIB
    assert max(windows[-20:]) <= 2 * FIRST


def test_readers_of_one_blob_do_not_disturb_each_other() -> None:
    readers = ReadAhead()
    alone = read_on(ReadAhead(), MIB, 16 * MIB)
    one, other = ReaderState(0, 0, 0, 0), ReaderState(0, 0, 0, 0)
    for offset in range(0, 4 * MIB, 128 * KIB):
        one, other = (
            readers.reader(offset, 128 * KIB),
            readers.reader(500 * MIB + offset, 128 * KIB),
        )
        assert one is not other
    assert one.streak == other.streak == 4 * MIB
    assert read_on(readers, MIB, 16 * MIB, start=900 * MIB) == alone


def test_requests_of_one_reader_may_come_out_of_order() -> None:
    readers = ReadAhead()
    for number in range(3):
        readers.reader(number * 128 * KIB, 128 * KIB).grow(LARGEST)
    later = readers.reader(4 * 128 * KIB, 128 * KIB)
    assert readers.reader(3 * 128 * KIB, 128 * KIB) is later


def test_a_request_is_worth_what_comes_in_its_time() -> None:
    pace = SourceSpeed()
    assert pace.worth == 0
    for _ in range(100):
        pace.note(0.05, 10 * MIB, 0.1)
    assert abs(pace.worth - 5 * MIB) < KIB
    for _ in range(100):
        pace.note(0.001, 3 * MIB, 1.0)
    assert pace.worth < 4 * KIB


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, MIB)), max_size=200),
    st.integers(0, 10**12),
)
def test_windows_and_readers_are_bounded(reads: list[tuple[int, int]], worth: int) -> None:
    readers = ReadAhead()
    for offset, length in reads:
        stream = readers.reader(offset, length)
        assert FIRST <= stream.grow(worth) <= LARGEST
        assert stream.end >= offset + length
    assert len(readers._readers) <= READERS


@given(
    st.lists(
        st.tuples(st.integers(0, 4 * KIB - 1), st.integers(1, 2 * MIB)), min_size=1, max_size=60
    ),
    st.integers(0, 512 * MIB),
)
def test_who_reads_file_after_file_asks_seldom_and_leaves_little_unread(
    files: list[tuple[int, int]], worth: int
) -> None:
    """Files as in a tar, with small gaps. The kernel reads each in pieces of 128 KiB."""
    readers, place, here, windows = ReadAhead(), 0, 0, []
    for between, size in files:
        place += between
        for offset in range(place, place + size, 128 * KIB):
            length = min(128 * KIB, place + size - offset)
            stream = readers.reader(offset, length)
            while offset + length > here:
                windows.append(stream.grow(worth))
                here += windows[-1]
        place += size
    assert len(readers._readers) == 1
    assert len(windows) <= 6 + max(0.0, math.log(place / (3 * FIRST), (PART + 1) / PART))
    assert here - place <= max(FIRST, worth, place // PART + 128 * KIB)


@given(
    st.lists(st.integers(0, 40), unique=True, max_size=40),
    st.integers(1, 128 * KIB),
    st.integers(0, 10**12),
)
def test_who_jumps_about_never_gets_more_than_the_least(
    places: list[int], length: int, worth: int
) -> None:
    readers = ReadAhead()
    for place in places:
        assert readers.reader(place * (SLACK + MIB), length).grow(worth) == FIRST
