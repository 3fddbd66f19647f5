"""Transfers, their rates and errors, as reported in status.json."""

from __future__ import annotations

import json

import pytest
from trio.testing import MockClock

from ocifs.cli.status import lines
from ocifs.content import Blob
from ocifs.errors import NotFound, Unreachable
from ocifs.oci.digest import Digest
from ocifs.units import format_size
from ocifs.watched import RATE_SECONDS, Traffic, WatchedSource
from tests.store.source import MemorySource


async def test_reachable_is_what_the_last_question_showed() -> None:
    traffic = Traffic("h")
    assert traffic.facts()["reachable"] is None
    for error, reachable in (
        (NotFound("x"), True),
        (Unreachable("gone"), False),
        (NotFound("x"), True),
    ):
        with pytest.raises(type(error)), traffic.request():
            raise error
        assert traffic.facts()["reachable"] is reachable
    assert (traffic.questions, traffic.failures) == (3, 1)


async def test_errors_are_bounded() -> None:
    traffic = Traffic("h")
    for number in range(100):
        with pytest.raises(Unreachable), traffic.request():
            raise Unreachable(str(number))
    kept = traffic.facts()["errors"]
    assert isinstance(kept, list) and [each["message"] for each in kept] == [
        "95",
        "96",
        "97",
        "98",
        "99",
    ]


async def test_a_transfer_is_seen_while_it_lasts_and_its_rate_for_a_while(
    mock_clock: MockClock,
) -> None:
    content = bytes(300_000)
    source, traffic = MemorySource(), Traffic("h")
    source.put(content)
    blob = Blob("a/b", Digest.of(content), len(content))
    async with WatchedSource(source, traffic).open_blob(blob, 0, len(content)) as stream:
        async for _ in stream:
            break
        facts = traffic.facts()
        assert facts["fetches"] == 1
        shown = "\n".join(lines({"registries": [json.loads(json.dumps(facts))]}))
        assert "a/b@sha256:" in shown and " of 293.0 KiB fetched" in shown
        async for _ in stream:
            pass
    assert traffic.facts()["fetches"] == 0
    received = traffic.received
    assert received >= len(content)
    mock_clock.jump(1)
    assert traffic.rate() == received / RATE_SECONDS
    mock_clock.jump(RATE_SECONDS)
    assert traffic.rate() == 0


async def test_a_transfer_that_fails_is_over(mock_clock: MockClock) -> None:
    traffic = Traffic("h")
    with pytest.raises(NotFound):
        async with WatchedSource(MemorySource(), traffic).open_blob(
            Blob("a", Digest.of(b"x"), 1), 0, 1
        ):
            pass
    assert traffic.facts()["fetches"] == 0


@pytest.mark.parametrize("told", [{}, {"registries": None}, {"registries": [1, {}]}, [], None])
def test_what_a_daemon_of_another_version_says_is_no_error(told: object) -> None:
    list(lines(told))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_amounts(count: int, text: str) -> None:
    assert format_size(count) == text
