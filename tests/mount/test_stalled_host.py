"""A silent host with more readers than the kernel's limit of background requests.

Other hosts are still served.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_registry_mount import push_files
from tests.support.faultproxy import fault_proxy
from tests.support.mount import Mounted, mounted, wait_until_blocked
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

READERS = 20
DICE = random.Random(11)
SMALL = [DICE.randbytes(200_000) for _ in range(READERS)]
LARGE = DICE.randbytes(12 << 20)
NOT_RAISED = "import ocifs.fuse.background as b\nb.raise_limit = lambda device: b.DEFAULT\n"
SOON = 60.0  # seconds: long, but far below the deadlines of the stuck readers


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push_files(running, "slow/app", "v1", *SMALL)
        push_files(running, "good/app", "v1", LARGE)
        yield running


def blob(mount: Mounted, host: str, name: str, number: int) -> Path:
    return mount.path / host / f"{name}:v1" / "layers" / str(number) / "blob"


@pytest.mark.parametrize(
    ("limit", "killed", "fault"),
    [
        ("raised", False, "silent"),
        ("the kernel's own", False, "silent"),
        ("the kernel's own", True, "silent"),
        ("the kernel's own", False, "trickle"),
        ("the kernel's own", True, "stall"),
    ],
)
def test_another_host_is_read_meanwhile(
    registry: Registry, tmp_path: Path, limit: str, killed: bool, fault: str
) -> None:
    environment = dict(os.environ)
    if limit != "raised":
        (tmp_path / "sitecustomize.py").write_text(NOT_RAISED)
        environment["PYTHONPATH"] = str(tmp_path)
    options = ("--timeout", "200", "--max-wait", "200")
    with (
        fault_proxy(registry.host) as proxy,
        mounted(
            [proxy.host, registry.host], tmp_path / "mnt", tmp_path / "cache", options, environment
        ) as mount,
    ):
        slow = [blob(mount, proxy.host, "slow/app", number) for number in range(READERS)]
        good = blob(mount, registry.host, "good/app", 0)
        for path in [*slow, good]:
            path.stat()
        proxy.fault = fault
        readers = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL) for path in slow]
        try:
            for reader in readers:
                wait_until_blocked(reader)
            if killed:
                for reader in readers:
                    reader.kill()
            done = subprocess.run(["cat", good], capture_output=True, timeout=SOON, check=True)
            assert done.stdout == LARGE
            assert killed or all(reader.poll() is None for reader in readers)
            assert not [
                line
                for line in (mount.path / ".ocifs/errors").read_text().splitlines()
                if "EAGAIN" in line
            ]
        finally:
            for reader in readers:
                reader.kill()
            for reader in readers:
                reader.wait(SOON)


def test_a_reader_of_a_host_that_was_stalled_gets_all_bytes(
    registry: Registry, tmp_path: Path
) -> None:
    """The kernel repeats the reads that were answered early, so the reader gets all bytes."""
    (tmp_path / "sitecustomize.py").write_text(NOT_RAISED)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with (
        fault_proxy(registry.host) as proxy,
        mounted(
            [proxy.host, registry.host], tmp_path / "mnt", tmp_path / "cache", (), environment
        ) as mount,
    ):
        slow = [blob(mount, proxy.host, "slow/app", number) for number in range(READERS)]
        for path in slow:
            path.stat()
        proxy.fault = "drip"
        readers = [subprocess.Popen(["cat", path], stdout=subprocess.PIPE) for path in slow]
        read = [reader.communicate(timeout=SOON)[0] for reader in readers]
        assert read == SMALL
        assert not (mount.path / ".ocifs/errors").read_text()


def test_a_direct_reader_sees_no_early_answer(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOT_RAISED)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with (
        fault_proxy(registry.host) as proxy,
        mounted(
            [proxy.host, registry.host], tmp_path / "mnt", tmp_path / "cache", (), environment
        ) as mount,
    ):
        slow = [blob(mount, proxy.host, "slow/app", number) for number in range(READERS)]
        for path in slow:
            path.stat()
        proxy.fault = "drip"
        command = ["dd", "iflag=direct", "bs=64k", "status=none"]
        readers = [
            subprocess.Popen([*command, f"if={path}"], stdout=subprocess.PIPE) for path in slow
        ]
        assert [reader.communicate(timeout=SOON)[0] for reader in readers] == SMALL
