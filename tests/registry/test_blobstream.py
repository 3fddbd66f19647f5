"""When a registry is asked for ranges again, and what is said of blobs that cannot be right."""

from __future__ import annotations

import pytest

from ocifs.errors import IntegrityError, Malformed
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
