"""Which reads are answered early, so that one host does not take all of the kernel's background
requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ocifs.concurrency import Deadline, SingleFlight, deadline, note_waiting_for
from ocifs.fuse.background import DEFAULT, SLOW, EarlyAnswers, excess_reads, raise_limit


@dataclass(eq=False)
class Read:
    began: float
    waiting: Deadline


def reads(*facts: tuple[str | None, float]) -> list[Read]:
    """Reads of places, so many seconds old at 100 s."""
    made = []
    for place, age in facts:
        waiting = Deadline(30, 300)
        waiting.host = place
        made.append(Read(100 - age, waiting))
    return made


async def test_the_oldest_reads_of_slow_hosts_stay_as_far_as_their_share_goes() -> None:
    stuck = reads(*[("slow", 1 + number) for number in range(10)])
    early = excess_reads(stuck, 100, 12)
    assert {read.began for read in early} == {100 - (1 + number) for number in range(6)}


async def test_new_reads_of_a_slow_host_are_answered_at_once() -> None:
    stuck = reads(*[("slow", 5.0)] * 4)
    new = reads(("slow", 0.0), ("good", 0.0))
    assert excess_reads([*stuck, *new], 100, 12) == new[:1]


@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.floats(0, 10)), max_size=60),
    st.integers(1, 300),
)
def test_what_waits_for_no_slow_host_is_never_answered_early(
    facts: list[tuple[str | None, float]], limit: int
) -> None:
    async def check() -> None:
        made = reads(*facts)
        early = excess_reads(made, 100, limit)
        slow = {place for place, age in facts if place is not None and age > SLOW}
        assert all(read.waiting.host in slow for read in early)
        stay = [read for read in made if read.waiting.host in slow and read not in early]
        assert len(stay) <= max(1, limit // 3)

    trio.run(check, clock=trio.testing.MockClock())


async def test_the_place_reaches_every_waiter_of_shared_work(
    autojump_clock: trio.testing.MockClock,
) -> None:
    places: list[str | None] = []
    async with trio.open_nursery() as nursery:
        flights: SingleFlight[str, None] = SingleFlight(nursery)

        async def work() -> None:
            await trio.sleep(1)
            note_waiting_for("host")
            await trio.sleep(2)

        async def wait(delay: float) -> None:
            await trio.sleep(delay)
            with deadline(30, 30) as waiting:
                await flights.run("key", work)
            places.append(waiting.host)

        nursery.start_soon(wait, 0)
        nursery.start_soon(wait, 2)
    assert places == ["host", "host"]


def test_what_was_answered_early_is_known_until_the_file_is_closed() -> None:
    answers = EarlyAnswers()
    answers.add(7, 4096, 8192)
    assert (7, 4096) in answers
    assert (7, 12287) in answers
    assert (7, 12288) not in answers
    assert (8, 4096) not in answers
    answers.forget(7)
    assert (7, 4096) not in answers


def test_files_that_are_read_in_any_number_of_parts_take_little_memory() -> None:
    answers = EarlyAnswers()
    for number in range(100_000):
        answers.add(1, number * 4096, 4096)
    assert len(answers._ranges[1]) <= 1024


def test_a_mount_that_the_kernel_does_not_know_has_its_own_limit() -> None:
    assert raise_limit(0xFFFFF) == DEFAULT
