"""Faulty responses to ranges, the pause of ranges, and responses that cannot be the blob."""

from __future__ import annotations

import pytest

from ocifs.errors import IntegrityError, Malformed, Unreachable
from ocifs.registry.blobstream import RANGES_PAUSE
from tests.registry.quirks import BLOB, CONTENT, acting, read
from tests.support.faults import Reply, http


async def test_a_registry_without_ranges_is_asked_for_one_again_later(autojump_clock) -> None:
    autojump_clock.autojump_threshold = float("inf")  # time moves by hand

    def handler(request) -> Reply:
        return http(501) if "range" in request.headers else http(200, CONTENT)

    async with acting(handler) as (client, server):
        for after, ranges in ((0, 1), (RANGES_PAUSE - 1, 1), (2, 2)):
            autojump_clock.jump(after)
            await read(client, 10, 20)
            assert sum("range" in request.headers for request in server.requests) == ranges


async def test_a_failure_that_passes_says_nothing_about_ranges(autojump_clock) -> None:
    autojump_clock.autojump_threshold = 0.2
    storm = [http(503), http(522)]

    def handler(request) -> Reply:
        return (
            storm.pop()
            if storm
            else http(206, CONTENT[10:20], content_range=f"bytes 10-19/{len(CONTENT)}")
        )

    async with acting(handler, retries=3) as (client, server):
        assert await read(client, 10, 20) == (10, CONTENT[10:20])
    assert all("range" in request.headers for request in server.requests)


LOST = {
    "reset": Reply(b"", "reset"),
    "end": Reply(b""),
    "end in the head": Reply(b"HTTP/1.1 206 P"),
}


@pytest.mark.parametrize("name", LOST)
async def test_a_range_whose_connection_is_lost_each_time_is_asked_for_as_the_whole(
    autojump_clock, name: str
) -> None:
    autojump_clock.autojump_threshold = 0.2

    def handler(request) -> Reply:
        return (
            LOST[name]
            if "range" in request.headers or request.method == "HEAD"
            else http(200, CONTENT)
        )

    async with acting(handler, retries=3) as (client, server):
        for start in (10, 1000):
            assert await read(client, start, start + 10) == (0, CONTENT)
        assert sum("range" in request.headers for request in server.requests) == 3
        assert len(server.requests) == 5  # the second read asks for the whole at once
    async with acting(handler, retries=3) as (client, server):
        assert await client.blob_size("a/b", BLOB.digest) == len(CONTENT)


async def test_a_connection_that_is_lost_once_says_nothing_about_ranges(autojump_clock) -> None:
    autojump_clock.autojump_threshold = 0.2
    losses = [LOST["reset"]]

    def handler(request) -> Reply:
        return (
            losses.pop()
            if losses
            else http(206, CONTENT[10:20], content_range=f"bytes 10-19/{len(CONTENT)}")
        )

    async with acting(handler, retries=3) as (client, server):
        assert await read(client, 10, 20) == (10, CONTENT[10:20])
    losses.append(LOST["reset"])
    async with acting(handler, retries=1) as (client, server):  # a mirror, which is asked once
        with pytest.raises(Unreachable):
            await read(client, 10, 20)
        assert len(server.requests) == 1


async def test_a_registry_that_loses_every_connection_is_unreachable(autojump_clock) -> None:
    autojump_clock.autojump_threshold = 0.2
    async with acting(lambda _: LOST["reset"], retries=2) as (client, server):
        with pytest.raises(Unreachable):
            await read(client, 10, 20)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (http(200, CONTENT[:99]), IntegrityError),
        (http(206, CONTENT[:99], content_range="bytes 7-99/100"), Malformed),
    ],
    ids=["short", "odd range"],
)
async def test_a_message_names_the_registry_and_the_blob(
    reply: Reply, kind: type[Exception]
) -> None:
    async with acting(lambda request: reply) as (client, server):
        with pytest.raises(kind) as caught:
            await read(client, 10, len(CONTENT))
        assert f"{server.host}: {BLOB.digest}" in str(caught.value)
