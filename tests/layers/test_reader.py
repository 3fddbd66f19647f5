"""Spans that are fetched and decoded for sequential and for random reads: laws for all layers."""

from __future__ import annotations

import random
from collections.abc import Sequence

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.content import Blob
from ocifs.layers.spans.budget import MemoryBudget
from ocifs.layers.spans.reader import CACHED, SpanReader
from ocifs.layers.spans.span import Checksum, Span, SpanMap
from ocifs.oci.digest import Digest
from tests.layers.tables import Memory

KIB = 1024
BETWEEN = 4 * KIB
LEFT_OUT = 64
ROW = 3
FURTHER = 6
DATA = random.Random(3).randbytes(2 << 20)
BLOB = Blob("app", Digest.of(b"some layer"), len(DATA))
Read = tuple[int, int]
"""Position and length."""


class Layer:
    """A layer with spans of these lengths, and one reader.

    `asked`: the numbers of the spans in the order of their fetches.
    """

    def __init__(self, lengths: Sequence[int], nursery: trio.Nursery, cached: int = CACHED) -> None:
        self.spans = SpanMap("none")
        place = 0
        for length in lengths:
            self.spans.add(
                Span(
                    place, length, place, place + length, Checksum.of(DATA[place : place + length])
                )
            )
            place += length
        self.size = place
        self._memory = Memory(DATA)
        self._reader = SpanReader(self._memory, nursery, MemoryBudget(4 << 20), cached)

    @property
    def asked(self) -> list[int]:
        numbers = {span.start: number for number, span in enumerate(self.spans)}
        return [numbers[start] for start, _ in self._memory.asked]

    async def read(self, start: int, length: int) -> None:
        """Read, from memory if possible, and wait for everything that is decoded ahead."""
        found = self._reader.read_nowait(BLOB, self.spans, start, length)
        if found is None:
            found = await self._reader.read(BLOB, self.spans, start, length)
        assert found == DATA[start : start + length]
        await trio.testing.wait_all_tasks_blocked()


SPANS = st.lists(st.integers(8 * KIB, 64 * KIB), min_size=4, max_size=30)


def after(
    lengths: Sequence[int], reads: Sequence[Read], cached: int = CACHED
) -> tuple[Layer, list[int]]:
    """A layer after some reads, and the numbers of the spans that were fetched."""

    async def work() -> Layer:
        async with trio.open_nursery() as nursery:
            layer = Layer(lengths, nursery, cached)
            for start, length in reads:
                await layer.read(start, length)
        return layer

    layer = trio.run(work)
    return layer, layer.asked


@st.composite
def reads_on(draw: st.DrawFn) -> tuple[list[int], list[Read]]:
    """Spans, and sequential reads of files with gaps between them, as in a tar."""
    lengths = draw(SPANS)
    files = draw(
        st.lists(
            st.tuples(st.integers(0, BETWEEN - 1), st.integers(1, 24 * KIB)),
            min_size=10,
            max_size=60,
        )
    )
    size, place, reads = sum(lengths), 0, []
    for between, length in files:
        start, stop = place + between, min(place + between + length, size)
        if start >= stop:
            break
        reads.append((start, stop - start))
        place = stop
    return lengths, reads


@settings(deadline=None)  # threads decode
@given(reads_on())
def test_who_reads_on_finds_the_next_span_there_from_file_to_file(
    made: tuple[list[int], list[Read]],
) -> None:
    lengths, reads = made

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            layer = Layer(lengths, nursery)
            so_far = 0
            for start, length in reads:
                await layer.read(start, length)
                so_far += length
                following = layer.spans.numbers(start, start + length)[-1] + 1
                if following < len(layer.spans) and so_far >= ROW * layer.spans[following].length:
                    assert following in layer.asked
            assert len(set(layer.asked)) == len(layer.asked)

    trio.run(work)


@st.composite
def any_reads(draw: st.DrawFn) -> tuple[list[int], list[Read]]:
    lengths = draw(SPANS)
    size = sum(lengths)
    places = draw(
        st.lists(
            st.tuples(st.integers(0, size - 1), st.integers(1, 32 * KIB)), min_size=4, max_size=16
        )
    )
    return lengths, [(start, min(length, size - start)) for start, length in places]


@settings(deadline=None)
@given(any_reads())
def test_nothing_is_fetched_ahead_for_more_than_a_part_of_what_was_read_in_a_row(
    made: tuple[list[int], list[Read]],
) -> None:
    lengths, reads = made
    layer, asked = after(lengths, reads)
    rows: list[int] = []
    wanted: set[int] = set()
    for number, (start, length) in enumerate(reads):
        before = [
            rows[n]
            for n, (other, more) in enumerate(reads[:number])
            if 0 <= start - other - more < max(BETWEEN, rows[n] // LEFT_OUT)
        ]
        rows.append(length + max(before, default=0))
        touched = layer.spans.numbers(start, start + length)
        wanted |= set(touched)
        total = 0
        for following in range(touched[-1] + 1, len(lengths)):
            total += lengths[following]
            if rows[-1] < (ROW if following == touched[-1] + 1 else FURTHER) * total:
                break
            wanted.add(following)
    assert set(asked) <= wanted
    assert len(asked) == len(set(asked))


def test_who_has_read_far_in_a_row_finds_several_spans_there() -> None:
    lengths = [64 * KIB] * 32
    _, asked = after(lengths, [(number * 64 * KIB, 64 * KIB) for number in range(2 * FURTHER)])
    assert sorted(asked) == [*range(2 * FURTHER + 2)]


def test_who_leaves_out_little_of_what_it_has_read_reads_on() -> None:
    """A directory of links has no content: between two files are the headers of the links."""
    lengths = [64 * KIB] * 32
    row = [(number * 64 * KIB, 64 * KIB) for number in range(2 * FURTHER)]  # brings two spans more
    end = len(row) * 64 * KIB
    for gap, spans in ((end // LEFT_OUT - 1, len(row) + 3), (end // LEFT_OUT, len(row) + 2)):
        _, asked = after(lengths, [*row, (end + gap, KIB)])
        assert sorted(asked) == [*range(spans)]


def test_who_jumps_about_gets_what_it_asks_for_alone() -> None:
    dice = random.Random(5)
    lengths = [64 * KIB] * 32
    reads = [
        (number * 64 * KIB + dice.randrange(60 * KIB), 4 * KIB)
        for number in dice.sample(range(32), 16)
    ]
    layer, asked = after(lengths, reads)
    assert asked == [layer.spans.numbers(start, start + 1)[0] for start, _ in reads]


def test_what_is_kept_in_memory_has_a_bound() -> None:
    lengths = [64 * KIB] * 32
    layer, _ = after(lengths, [(number * 64 * KIB, 64 * KIB) for number in range(32)], 200 * KIB)
    kept = layer._reader._decoded
    assert sum(map(len, kept.values())) == layer._reader._decoded.currsize <= 200 * KIB


class Slow(Memory):
    """Bytes that arrive when no reader waits for anything else.

    `most`: the maximum of compressed bytes that were in flight.
    """

    most = under_way = 0

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        self.under_way += length
        self.most = max(self.most, self.under_way)
        await trio.testing.wait_all_tasks_blocked()
        self.under_way -= length
        return await super().read_blob(blob, offset, length, toward)


async def test_many_readers_decode_within_the_budget() -> None:
    spans, length = SpanMap("none"), 64 * KIB
    for start in range(0, len(DATA), length):
        spans.add(
            Span(start, length, start, start + length, Checksum.of(DATA[start : start + length]))
        )
    slow, found = Slow(DATA), {}
    async with trio.open_nursery() as nursery:
        layer = SpanReader(slow, nursery, MemoryBudget(16 * length))

        async def read(number: int) -> None:
            found[number] = await layer.read(BLOB, spans, number * length, length)

        async with trio.open_nursery() as readers:
            for number in range(len(spans)):
                readers.start_soon(read, number)
    assert b"".join(found[number] for number in range(len(spans))) == DATA
    assert slow.most == 4 * length  # each is counted four times: packed, plain, and a copy of both


async def test_many_who_read_on_have_no_more_decoded_ahead_than_one() -> None:
    spans, length = SpanMap("none"), 64 * KIB
    for start in range(0, len(DATA), length):
        spans.add(
            Span(start, length, start, start + length, Checksum.of(DATA[start : start + length]))
        )
    slow = Slow(DATA)
    async with trio.open_nursery() as nursery:
        layer = SpanReader(slow, nursery, MemoryBudget(1 << 30), 6 * length)
        for start in range(0, len(spans), 8):
            for number in range(start, start + 4):
                await layer.read(BLOB, spans, number * length, length)
                assert layer._ahead_bytes <= 4 * length
                assert layer._ahead_bytes == sum(key[3] for key in layer._ahead)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert layer._ahead_bytes == 0
