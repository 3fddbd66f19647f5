"""The number of connections of a host, on simulated lines."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ocifs.settings import KIB, MIB
from ocifs.store.blobs.connections import FAST, MEMORY, STRAIN_HOLD, ConnectionCount

PIECE = 64 * KIB
MB = 1_000_000


@dataclass(frozen=True)
class Line:
    """A line with a pace for each connection and one for all, and a latency.

    The server answers at most `accepted` connections; further ones wait.
    """

    each: float
    total: float = 1e12
    latency: float = 0.05
    accepted: int = 100


def run(line: Line, count: ConnectionCount, size: int, now: float = 0.0) -> tuple[float, list[int]]:
    """Transfer `size` bytes in requests of 8 MiB. Returns the time at the end, and every limit."""
    left, limits, answered = size, [count.limit], 0
    events: list[tuple[float, int, int]] = []  # the time of the next piece, a request, what is left
    number = 0

    def send() -> None:
        nonlocal left, number
        while left > 0 and len(events) < count.limit:
            request = min(left, 8 * MIB)
            left -= request
            count.begin(now)
            number += 1
            heapq.heappush(events, (now + line.latency, number, request))

    send()
    begun: set[int] = set()
    while events:
        now, request, rest = heapq.heappop(events)
        if request not in begun:
            if answered >= line.accepted:
                heapq.heappush(events, (now + 0.01, request, rest))
                continue
            begun.add(request)
            answered += 1
            count.answer(now, line.latency)
        pace = min(line.each, line.total / max(1, answered))
        piece = min(PIECE, rest)
        now += piece / pace
        count.arrived(now, piece)
        if rest > piece:
            heapq.heappush(events, (now, request, rest - piece))
        else:
            answered -= 1
            count.end(now)
        send()
        if limits[-1] != count.limit:
            limits.append(count.limit)
    return now, limits


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (Line(20 * MB), {8}),  # limited for each connection
        (Line(1 * MB), {8}),
        (Line(3 * MB, total=3 * MB), {1}),  # limited for the client
        (Line(1 * MB, total=1 * MB, latency=0.3), {1}),
        (Line(20 * MB, total=50 * MB), {3}),  # first the one, then the other
        (Line(2 * FAST, latency=0.0005), {1}),  # loopback
        (Line(20 * MB, accepted=3), {3}),  # a server that lets further connections wait
        (Line(20 * MB, accepted=1), {1}),
    ],
)
def test_the_number_that_pays_is_found(line: Line, found: set[int]) -> None:
    count = ConnectionCount(8)
    run(line, count, 200 * MIB)
    assert (count._paid if count.is_trying else count.limit) in found


def test_a_fast_connection_is_never_divided() -> None:
    assert run(Line(1.5 * FAST, latency=0.001), ConnectionCount(8), 500 * MIB)[1] == [1]


def test_the_next_blob_begins_with_the_number_that_was_found() -> None:
    count, line = ConnectionCount(8), Line(20 * MB)
    end, _ = run(line, count, 200 * MIB)
    assert run(line, count, 20 * MIB, end + 1)[1] == [8]
    assert run(line, count, 100 * KIB, end + 10 + 2 * MEMORY)[1] == [8, 1]


def test_an_attempt_that_did_not_pay_is_not_repeated_soon() -> None:
    count = ConnectionCount(8)
    _, limits = run(Line(3 * MB, total=3 * MB), count, 30 * MIB)
    assert limits[:3] == [1, 3, 1]
    assert limits.count(3) <= 5  # in ten seconds
    _, limits = run(Line(3 * MB, total=3 * MB), count, 1000 * MIB, 12.0)
    assert limits.count(3) <= 10  # in six minutes


def test_a_host_that_limits_requests_gets_one_connection_at_a_time() -> None:
    count, line = ConnectionCount(8), Line(20 * MB)
    end, _ = run(line, count, 200 * MIB)
    count.strained(end)
    assert run(line, count, 500 * MIB, end)[1] == [1]
    end, _ = run(line, count, 200 * MIB, end + STRAIN_HOLD + 1)
    assert count.limit == 8


def test_a_caller_who_wants_everything_gets_many_connections_at_once() -> None:
    count = ConnectionCount(8)
    count.is_eager = True
    assert run(Line(20 * MB), count, 200 * MIB)[1] == [1, 8]
    count = ConnectionCount(8)
    count.is_eager = True
    assert run(Line(3 * MB, total=3 * MB), count, 10 * MIB)[1][:3] == [1, 8, 1]
    count = ConnectionCount(8)
    count.is_eager = True
    assert run(Line(50 * MB, latency=0.001), count, 500 * MIB)[1] == [1]


def test_a_number_that_no_longer_pays_falls() -> None:
    count = ConnectionCount(8)
    end, _ = run(Line(20 * MB), count, 200 * MIB)
    assert count.limit == 8
    _, limits = run(Line(50 * MB, total=50 * MB), count, 8000 * MIB, end)
    assert min(limits) <= 2


def test_lost_connections_halve_the_number() -> None:
    count = ConnectionCount(8)
    end, _ = run(Line(20 * MB), count, 200 * MIB)
    seen = []
    for _ in range(5):
        count.lost(end)
        seen.append(count.limit)
    assert seen == [4, 2, 1, 1, 1]


@given(
    st.floats(0.2 * MB, 400 * MB),
    st.floats(0.2 * MB, 400 * MB),
    st.floats(0.0001, 0.4),
    st.integers(1, 12),
    st.integers(1, 120),
)
@settings(max_examples=60)
def test_it_is_never_much_slower_than_one_connection(
    each: float, total: float, latency: float, most: int, size: int
) -> None:
    line = Line(each, total, latency)
    count = ConnectionCount(most)
    seconds, limits = run(line, count, size * MIB)
    alone, _ = run(line, ConnectionCount(1), size * MIB)
    assert all(1 <= limit <= most for limit in limits)
    assert seconds <= alone * 1.05 + 4 * latency


class Transfers(RuleBasedStateMachine):
    """Any order of events, as of many transfers that begin, fail and end at any time."""

    @initialize(most=st.integers(1, 16))
    def start(self, most: int) -> None:
        self.count = ConnectionCount(most)
        self.most = most
        self.now = 0.0
        self.active = 0

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 1.5, 20.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        self.count.begin(self.now)
        self.active += 1

    @precondition(lambda self: self.active)
    @rule(length=st.integers(1, 4 * MIB), times=st.integers(1, 50))
    def receive(self, length: int, times: int) -> None:
        self.count.answer(self.now, 0.05)
        for _ in range(times):
            self.now += 0.01
            self.count.arrived(self.now, length)

    @precondition(lambda self: self.active)
    @rule()
    def end(self) -> None:
        self.count.end(self.now)
        self.active -= 1

    @rule()
    def lose(self) -> None:
        before = self.count.limit
        self.count.lost(self.now)
        assert self.count.limit <= max(1, before // 2) or before == 1

    @rule()
    def refuse(self) -> None:
        self.count.strained(self.now)
        assert self.count.limit == 1
        assert self.count.is_settled(self.now)

    @rule(most=st.integers(1, 16))
    def bound(self, most: int) -> None:
        self.count.most = self.most = most

    @invariant()
    def is_bounded(self) -> None:
        assert 1 <= self.count.limit <= 16
        assert self.count.pace >= 0


TestTransfers = Transfers.TestCase
