"""A slow first access: progress is visible, the caller can be killed, and the work continues."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.layers.tars import entry, tar
from tests.mount.test_rootfs_mount import push_image
from tests.support.faultproxy import HELD, FaultProxy, fault_proxy, twice
from tests.support.mount import Mounted, mounted, run_ocifs
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

LAYER = tar(
    entry("first", content=b"1"),
    entry("big", content=random.Random(3).randbytes(3_000_000)),
    entry("last", content=b"2"),
)


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultProxy]:
    """A registry that sends half of the layer until its gate is opened."""
    push_image(registry, "slow/app", LAYER)
    with fault_proxy(registry.host) as running:
        running.fault = HELD
        yield running
        running.gate.set()


def look(mount: Mounted) -> subprocess.Popen[str]:
    command = ["ls", str(mount.path / "rootfs")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def traffic(mount: Mounted) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((mount.path / ".ocifs/status.json").read_bytes())[
        "registries"
    ][0]
    return facts


def once(mount: Mounted, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Poll a mount's status of its registry until a condition holds, and return it."""
    deadline = time.monotonic() + 60
    while not ready(facts := traffic(mount)):
        assert time.monotonic() < deadline, facts
        time.sleep(0.05)
    return facts


def half(facts: dict[str, Any]) -> bool:
    return any(each["received"] > 1_000_000 for each in facts["fetching"])


def test_a_first_access_reports_the_fetched_bytes_and_their_rate(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    with (
        mounted(f"{proxy.host}/slow/app:v1", tmp_path / "mnt", tmp_path / "cache") as mount,
        look(mount) as ls,
    ):
        facts = once(mount, lambda facts: half(facts) and facts["bytes_per_second"] > 0)
        [fetching] = facts["fetching"]
        layer = (mount.path / "layers/0/digest").read_text().strip()
        assert (fetching["repository"], fetching["digest"], fetching["start"]) == (
            "slow/app",
            layer,
            0,
        )
        size = (mount.path / "layers/0/blob").stat().st_size
        assert fetching["received"] < fetching["stop"] == fetching["size"] == size
        said = run_ocifs("status", cache=tmp_path / "cache").stdout.decode()
        assert f"slow/app@{layer[:19]}…: 1.4 MiB of 2.9 MiB fetched\n" in said
        assert re.search(r"reachable; 1\.4 MiB received, \S+ \S+/s, 1 active fetch\n", said)
        assert ls.poll() is None
        proxy.gate.set()
        assert ls.communicate(timeout=120) == ("big\nfirst\nlast\n", "")
        assert once(mount, lambda facts: not facts["fetching"])["bytes_received"] >= size


def test_the_status_of_a_partial_fetch_has_the_size_of_the_blob(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    with mounted(f"{proxy.host}/slow/app:v1", tmp_path / "mnt", tmp_path / "cache") as mount:
        part = [
            "dd",
            f"if={mount.path / 'layers/0/blob'}",
            "bs=1M",
            "skip=1",
            "count=1",
            "status=none",
        ]
        with subprocess.Popen(part, stdout=subprocess.DEVNULL) as reader:
            once(mount, lambda facts: any(each["received"] for each in facts["fetching"]))
            said = run_ocifs("status", cache=tmp_path / "cache").stdout.decode()
            assert re.search(r"slow/app@\S+: .* of .* fetched \(a part of 2\.9 MiB\)\n", said)
            proxy.gate.set()
            assert reader.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_frees_the_caller_and_the_work_goes_on(
    proxy: FaultProxy, tmp_path: Path, number: signal.Signals
) -> None:
    with (
        mounted(f"{proxy.host}/slow/app:v1", tmp_path / "mnt", tmp_path / "cache") as mount,
        look(mount) as ls,
    ):
        assert proxy.holding.wait(60)
        ls.send_signal(number)
        assert ls.wait(60) == -number  # the content would arrive after 100 seconds
        assert traffic(mount)["fetching"]
        proxy.gate.set()
        assert sorted(os.listdir(mount.path / "rootfs")) == ["big", "first", "last"]
        assert twice(proxy.parts) == []


def test_an_access_times_out_and_the_next_one_finds_more_content(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    options = ["--max-wait", "1"]
    with mounted(
        f"{proxy.host}/slow/app:v1", tmp_path / "mnt", tmp_path / "cache", options
    ) as mount:
        for _ in range(2):
            with pytest.raises(OSError) as refused:
                os.listdir(mount.path / "rootfs")
            assert refused.value.errno == errno.ETIMEDOUT
            assert half(traffic(mount))
        proxy.gate.set()
        once(mount, lambda facts: not facts["fetching"])
        assert sorted(os.listdir(mount.path / "rootfs")) == ["big", "first", "last"]
        assert twice(proxy.parts) == []
