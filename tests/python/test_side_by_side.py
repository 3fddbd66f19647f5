"""Prefetch and export of several layers at the same time, their interruption and continuation."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from ocifs.errors import NotFound
from ocifs.settings import MIB
from ocifs.verbs.side_by_side import AT_A_TIME, side_by_side
from tests.support.throttled import NAME, Served, Throttled, throttled

LAYERS = [random.Random(number).randbytes(3 * MIB) for number in range(6)]
TOTAL = sum(map(len, LAYERS))
# Bytes on their way when a program ends: in the sockets, and in a batch of each transfer.
ON_THE_WAY = 8 * MIB


async def test_items_are_worked_on_side_by_side_and_bounded() -> None:
    running: list[int] = []
    most = 0

    async def work(item: int) -> None:
        nonlocal most
        running.append(item)
        most = max(most, len(running))
        await trio.testing.wait_all_tasks_blocked()
        running.remove(item)

    await side_by_side(work, range(3 * AT_A_TIME))
    assert most == AT_A_TIME
    assert not running


async def test_the_first_error_ends_all_and_is_raised_as_it_is() -> None:
    async def work(item: int) -> None:
        if item == 1:
            raise NotFound("no such layer")
        await trio.sleep_forever()

    with pytest.raises(NotFound, match="no such layer"):
        await side_by_side(work, range(9))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An image layout of an artifact with six layers."""
    directory = tmp_path / "layout"

    def put(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        path = directory / "blobs" / "sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    kind = "application/vnd.oci.image.manifest.v1+json"
    empty = "application/vnd.oci.empty.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "artifactType": "application/vnd.example.data",
        "config": {"mediaType": empty, **put(b"{}")},
        "layers": [{"mediaType": "application/octet-stream", **put(layer)} for layer in LAYERS],
    }
    named = {"org.opencontainers.image.ref.name": "v1"}
    entry = {"mediaType": kind, **put(json.dumps(manifest).encode()), "annotations": named}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return directory


def start(cache: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ocifs", *arguments],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def is_layer(entry: Served) -> bool:
    return "/blobs/" in entry.path and entry.stop > len(b"{}")


def sent(server: Throttled) -> int:
    """The bytes of layers that the server has sent since the last call."""
    return sum(entry.sent for entry in server.requests() if is_layer(entry))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("verb", ["prefetch", "export"])
def test_an_interrupted_verb_continues_where_it_ended(
    tmp_path: Path, layout: Path, verb: str, how: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    target = [f"oci:{tmp_path}/out"] if verb == "export" else []
    with throttled(layout, rate=2 * MIB) as server:
        process = start(cache, verb, f"{server.host}/{NAME}:v1", *target)
        blobs = cache / "ocifs" / "v1"
        deadline = time.monotonic() + 60
        # About a third is cached.
        while sum(path.stat().st_blocks * 512 for path in blobs.rglob("*")) < TOTAL // 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(how)
        assert process.wait(60) != 0
        first = sent(server)
        assert first < TOTAL
    with throttled(layout) as server:
        # The cache belongs to the name of the registry, and its blobs to their digests.
        process = start(cache, verb, f"{server.host}/{NAME}:v1", *target)
        assert process.wait(60) == 0
        rest = sent(server)
    assert TOTAL <= first + rest <= TOTAL + ON_THE_WAY
    assert rest < TOTAL


def test_the_layers_are_fetched_side_by_side(tmp_path: Path, layout: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    with throttled(layout, rate=2 * MIB) as server:
        assert start(cache, "prefetch", f"{server.host}/{NAME}:v1").wait(60) == 0
        log = [entry for entry in server.requests() if is_layer(entry)]
    assert sum(entry.sent for entry in log) == TOTAL
    # The second layer was requested before the first one had arrived.
    first = min(log, key=lambda entry: entry.began)
    others = [entry for entry in log if entry.path != first.path]
    assert any(entry.began < first.ended for entry in others)
