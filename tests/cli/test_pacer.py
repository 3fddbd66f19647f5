"""The pace of `ocifs find` and `ocifs ls -l`: a few requests at a time, slower when the registry
limits them, and with an end.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.errors import NotFound, RateLimited
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.settings import Timing
from ocifs.verbs.pacer import AT_A_TIME, FEW_LEFT, Pacer
from tests.support.faults import Reply, Request, fault_server, http
from tests.support.mount import run_ocifs


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


class CountingRegistry:
    """A registry that counts concurrent requests, and refuses as many as it has refusals."""

    def __init__(self, *refusals: float | None) -> None:
        self.refusals = list(refusals)
        self.now = self.most = 0
        self.times: list[float] = []

    async def request(self) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        self.times.append(trio.current_time())
        try:
            await trio.sleep(1)
        finally:
            self.now -= 1
        if self.refusals:
            raise RateLimited("too often", retry_after=self.refusals.pop(0))
        return "answer"


async def run_often(pace: Pacer, work: Callable[[], Awaitable[str]], times: int) -> list[str]:
    found: list[str] = []

    async def once() -> None:
        found.append(await pace.run(work))

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(once)
    return found


async def test_a_few_requests_run_at_a_time(clock) -> None:
    registry, messages = CountingRegistry(), list[str]()
    assert (
        await run_often(Pacer(Timing(), messages.append), registry.request, 10) == ["answer"] * 10
    )
    assert (registry.most, len(registry.times), messages) == (AT_A_TIME, 10, [])


async def test_after_a_refusal_all_pause_and_then_one_request_runs_at_a_time(
    clock,
) -> None:
    registry, messages = CountingRegistry(60.0), list[str]()
    began = trio.current_time()
    assert (
        await run_often(Pacer(Timing(), messages.append), registry.request, 10) == ["answer"] * 10
    )
    assert len(registry.times) == 11
    early = [time for time in registry.times if time < began + 1]
    assert len(early) == AT_A_TIME
    late = [time for time in registry.times if time >= began + 1]
    assert min(late) >= began + 61
    assert len(set(late)) == len(late)  # one after the other
    assert messages == ["rate limited by the registry: waiting 60 s, then one request at a time"]


async def test_without_retry_after_the_pause_doubles(
    clock,
) -> None:
    registry, messages = CountingRegistry(None, None), list[str]()
    assert await Pacer(Timing(), messages.append).run(registry.request) == "answer"
    gaps = [
        later - earlier for earlier, later in zip(registry.times, registry.times[1:], strict=False)
    ]
    assert gaps == [6.0, 11.0]


@pytest.mark.parametrize("refusals", [(301.0,), (None,) * 20], ids=["too long", "too often"])
async def test_waiting_has_an_end(clock, refusals: tuple[float | None, ...]) -> None:
    registry = CountingRegistry(*refusals)
    with pytest.raises(RateLimited):
        await Pacer(Timing(), lambda text: None).run(registry.request)
    assert len(registry.times) < 10


async def test_other_errors_are_raised_at_once(clock) -> None:
    async def absent() -> str:
        raise NotFound("no")

    began = trio.current_time()
    with pytest.raises(NotFound):
        await Pacer(Timing(), lambda text: None).run(absent)
    assert trio.current_time() == began


@pytest.mark.parametrize(
    ("left", "most"), [(f"{FEW_LEFT};w=21600", 1), (f"{FEW_LEFT + 1};w=21600", AT_A_TIME)]
)
async def test_few_remaining_requests_run_one_at_a_time(clock, left: str, most: int) -> None:
    registry, messages = CountingRegistry(), list[str]()
    pace = Pacer(
        Timing(),
        messages.append,
        {"registry x": lambda: {"rate_limits": {"ratelimit-remaining": left, "time": 1.0}}},
    )
    await pace.run(registry.request)
    registry.most = 0
    await run_often(pace, registry.request, 8)
    assert registry.most == most
    assert bool(messages) == (most == 1)


def limited(refuse_at: int) -> Callable[[Request], Reply]:
    """A registry of one repository with ten charts, which refuses one of the requests."""
    config = {
        "mediaType": "application/vnd.cncf.helm.config.v1+json",
        "digest": "sha256:" + "0" * 64,
        "size": 9,
    }
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": config, "layers": []}
    ).encode()
    digest = str(Digest.of(body))
    asked = 0

    def answer(request: Request) -> Reply:
        nonlocal asked
        if request.target.startswith("/v2/charts/tags/list"):
            return http(
                200, json.dumps({"name": "charts", "tags": [str(n) for n in range(10)]}).encode()
            )
        if not request.target.startswith("/v2/charts/manifests/"):
            return http(200 if request.target == "/v2/" else 404)
        asked += 1
        if asked == refuse_at:
            return http(429, retry_after="1")
        if request.method == "HEAD":
            size = {"content_length": str(len(body))}
            return http(
                200, content_type=mediatype.OCI_MANIFEST, docker_content_digest=digest, **size
            )
        return http(200, body, content_type=mediatype.OCI_MANIFEST, docker_content_digest=digest)

    return answer


@pytest.mark.servers
@pytest.mark.parametrize("command", [("find",), ("ls", "-l")], ids=["find", "ls -l"])
def test_a_refusal_loses_no_result(command: tuple[str, ...], tmp_path: Path) -> None:
    with fault_server(limited(refuse_at=7)) as server:
        place = ("_tags",) if command[0] == "ls" else ()
        done = run_ocifs(
            *command, "--timeout", "0.9", f"{server.host}/charts", *place, cache=tmp_path
        )
    lines = done.stdout.decode().splitlines()
    assert len([line for line in lines if "helm-chart" in line]) == 10
    assert b"rate limited by the registry" in done.stderr
