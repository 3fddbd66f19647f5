"""Retry-After, rate limits, warnings, conditional requests, and reused connections."""

from __future__ import annotations

import json
from email.utils import formatdate
from time import time

import pytest
import trio

from ocifs import __version__, errors
from ocifs.content import Blob
from ocifs.oci.digest import Digest
from ocifs.registry.http.etags import EtagStore, RegistryResponse
from ocifs.settings import Limits, NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.faults import Reply, Request, fault_server, http, in_turn
from tests.support.push import push_blob
from tests.support.registry import Registry

TAGS = http(200, b'{"tags": ["v1"]}')


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_patience_is_given_as_long_as_it_is_asked_for(
    autojump_clock, status: int, form: str
) -> None:
    autojump_clock.autojump_threshold = 0.2
    after = "20" if form == "seconds" else formatdate(time() + 20, usegmt=True)
    with fault_server(in_turn(http(status, retry_after=after), TAGS)) as server:
        async with open_registry(server.host, Settings()) as client:
            began = trio.current_time()
            assert await client.tags("a/b") == ("v1",)
            assert 18 <= trio.current_time() - began < 30
    assert len(server.requests) == 2


async def test_patience_ends_with_that_of_who_asks_and_is_eagain(autojump_clock) -> None:
    autojump_clock.autojump_threshold = 0.2
    with fault_server(in_turn(http(429, retry_after="20"))) as server:
        async with open_registry(server.host, Settings()) as client:
            with pytest.raises(errors.RateLimited):
                await client.tags("a/b")
            assert trio.current_time() < 30  # as --timeout has it: EAGAIN, not ETIMEDOUT
    assert len(server.requests) == 2


async def test_who_was_asked_for_patience_leaves_the_registry_alone_for_that_kind_of_question(
    autojump_clock,
) -> None:
    autojump_clock.autojump_threshold = 0.2

    def handler(request: Request) -> Reply:
        return http(429, retry_after="3600") if "/manifests/" in request.target else TAGS

    digest = Digest.of(b"x")
    with fault_server(handler) as server:
        async with open_registry(server.host, Settings()) as client:
            for _ in range(3):
                with pytest.raises(errors.RateLimited):
                    await client.manifest("a/b", digest)
            assert len(server.requests) == 1
            assert await client.tags("a/b") == ("v1",)  # which is another kind
            autojump_clock.jump(301)  # no registry is left alone for longer
            with pytest.raises(errors.RateLimited):
                await client.manifest("a/b", digest)
            assert len(server.requests) == 3


async def test_all_who_ask_wait_for_the_same_pause(autojump_clock) -> None:
    autojump_clock.autojump_threshold = 0.2
    first = iter([http(503, retry_after="10")])
    with fault_server(lambda request: next(first, TAGS)) as server:
        async with open_registry(server.host, Settings()) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.tags, "a/a")
                await trio.testing.wait_all_tasks_blocked(0.1)
                for name in ("b", "c", "d"):
                    nursery.start_soon(client.tags, f"a/{name}")
                await trio.testing.wait_all_tasks_blocked(0.1)
    assert len(server.requests) == 5


WARNED = 'Warning: 299 - "the sky \\"is\\" falling", 299 - "a\x07 bell", 199 - "not for people"'


async def test_warnings_and_limits_are_shown_once_each(caplog: pytest.LogCaptureFixture) -> None:
    texts = WARNED.removeprefix("Warning: ")
    limits = {
        "RateLimit_Limit": "100;w=21600",
        "RateLimit_Remaining": "76;w=21600",
        "X_RateLimit_Reset": "9",
    }
    with fault_server(
        lambda request: http(200, b'{"tags": []}', warning=texts, **limits)
    ) as server:
        async with open_registry(server.host, Settings()) as client:
            await client.tags("a/b")
            await client.tags("a/c")
            facts = client.facts()
    assert [each["message"] for each in facts["warnings"]] == ['the sky "is" falling', "a  bell"]
    assert caplog.text.count("the sky") == 1
    shown = {name: value for name, value in facts["rate_limits"].items() if name != "time"}
    assert shown == {
        "ratelimit-limit": "100;w=21600",
        "ratelimit-remaining": "76;w=21600",
        "x-ratelimit-reset": "9",
    }


async def test_warnings_are_bounded() -> None:
    numbers = iter(range(1000))
    with fault_server(
        lambda request: http(200, b"{}", warning=f'299 - "{next(numbers)}{"x" * 500}"')
    ) as server:
        async with open_registry(server.host, Settings()) as client:
            for _ in range(40):
                await client.tags("a/b")
            shown = client.facts()["warnings"]
    assert len(shown) == 16
    assert len(json.dumps(shown)) < 16 * 300


async def test_what_a_storage_host_says_is_no_warning_of_the_registry() -> None:
    content = b"x" * 10
    with fault_server(in_turn(http(200, content, warning='299 - "mine"'))) as storage:
        with fault_server(in_turn(http(307, location=f"http://{storage.host}/b"))) as server:
            async with open_registry(server.host, Settings()) as client:
                async with client.open_blob(Blob("a/b", Digest.of(content), 10), 0, 10) as stream:
                    assert b"".join([piece async for piece in stream]) == content
                assert client.facts()["warnings"] == []


async def test_a_list_with_an_etag_is_asked_for_only_where_it_has_changed() -> None:
    lists = {"v": 1}

    def handler(request: Request) -> Reply:
        etag = f'"{lists["v"]}"'
        if request.headers.get("if-none-match") == etag:
            return http(304, etag=etag)
        tags = json.dumps({"tags": [f"v{number}" for number in range(lists["v"])]})
        return http(200, tags.encode(), etag=etag)

    with fault_server(handler) as server:
        async with open_registry(server.host, Settings()) as client:
            for count in (1, 1, 2, 2):
                lists["v"] = count
                assert len(await client.tags("a/b")) == count
    conditions = [request.headers.get("if-none-match") for request in server.requests]
    assert conditions == [None, '"1"', '"1"', '"2"']


async def test_a_304_that_nobody_asked_for_is_no_list() -> None:
    with fault_server(in_turn(http(304))) as server:
        async with open_registry(server.host, Settings(limits=Limits(retries=1))) as client:
            with pytest.raises(errors.RegistryFailed):
                await client.tags("a/b")


def test_answers_are_kept_within_their_bound() -> None:
    kept = EtagStore(100)
    for number in range(5):
        kept.update(str(number), RegistryResponse(200, {"etag": f'"{number}"'}, b"x" * 40))
    kept.update("large", RegistryResponse(200, {"etag": '"large"'}, b"x" * 101))
    assert [name for name in ("0", "1", "2", "3", "4", "large") if kept.condition(name)] == [
        "3",
        "4",
    ]


@pytest.mark.servers
async def test_connections_are_bounded_and_kept(registry: Registry) -> None:
    content = b"0123456789" * 1000
    blob = Blob(
        "manners/kept", Digest.parse(push_blob(registry.url, "manners/kept", content)), len(content)
    )
    opened: set[object] = set()
    at_once, most = [0], [0]
    settings = Settings(network=NetworkSettings(connections=3))
    async with open_registry(registry.host, settings) as client:

        async def read() -> None:
            async with client.open_blob(blob, 0, 10) as stream:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert b"".join([piece async for piece in stream]) == b"0123456789"
                at_once[0] -= 1

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(read)
        pools = client._connection._client._transport._pools.values()
        opened = {connection for pool in pools for connection in pool.connections}
    assert most[0] == 3
    assert len(opened) == 3
    assert f"ocifs/{__version__}" in registry.log.read_text()
