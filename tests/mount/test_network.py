"""A mount over a network that loses packets, is slow, or is cut.

Two network namespaces are connected by a virtual cable.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.mount.test_registry_mount import push_files
from tests.support.mount import mounted, wait_until_blocked
from tests.support.registry import CONFIG, running_registry

pytestmark = [
    pytest.mark.mount,
    pytest.mark.servers,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can lay cables between network namespaces"
    ),
]

CONTENT = random.Random(5).randbytes(6_000_000)
OURS, LIBRARY_ERRORS = "10.211.7.1", "10.211.7.2"
PORT = 5000


@dataclass(frozen=True)
class Far:
    """A registry at the other end of a cable. `name` is the name of its namespace."""

    name: str
    cable: str
    log: Path

    @property
    def host(self) -> str:
        return f"{LIBRARY_ERRORS}:{PORT}"

    def there(self, *command: str) -> None:
        """Run a command at the other end."""
        subprocess.run(["ip", "netns", "exec", self.name, *command], check=True, timeout=120)

    def cut(self) -> None:
        self.there("ip", "link", "set", "far", "down")

    def mend(self) -> None:
        self.there("ip", "link", "set", "far", "up")


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, timeout=120, capture_output=not check)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    """A registry with one artifact, in a separate network namespace."""
    (tmp_path / "near").mkdir()
    with running_registry(tmp_path / "near") as near:
        push_files(near, "far/app", "v1", CONTENT)
    name, cable = f"ocifs{os.getpid()}", f"oc{os.getpid()}"
    config, log = tmp_path / "far.yml", tmp_path / "far.log"
    text = CONFIG.format(root=tmp_path / "near" / "data", port=PORT)
    config.write_text(text.replace("127.0.0.1", LIBRARY_ERRORS))
    with contextlib.ExitStack() as stack:
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name, check=False)
        ip("link", "add", cable, "type", "veth", "peer", "name", "far", "netns", name)
        stack.callback(ip, "link", "del", cable, check=False)
        ip("addr", "add", f"{OURS}/30", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", name, "addr", "add", f"{LIBRARY_ERRORS}/30", "dev", "far")
        ip("-n", name, "link", "set", "far", "up")
        with log.open("wb") as output:
            command = ["ip", "netns", "exec", name, "docker-registry", "serve", str(config)]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        stack.callback(process.wait, 10)
        stack.callback(process.kill)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (
                    httpx.get(
                        f"http://{LIBRARY_ERRORS}:{PORT}/v2/", trust_env=False, timeout=2
                    ).status_code
                    == 200
                ):
                    break
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Far(name, cable, log)


def blob(mount: Path) -> Path:
    return mount / "far/app/_blobs" / f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_lost_packets_cost_time_and_nothing_else(far: Far, tmp_path: Path) -> None:
    far.there(
        "iptables",
        "-A",
        "INPUT",
        "-m",
        "statistic",
        "--mode",
        "random",
        "--probability",
        "0.05",
        "-j",
        "DROP",
    )
    with mounted(far.host, tmp_path / "mnt", tmp_path / "cache", ["--plain-http"]) as mount:
        assert blob(mount.path).read_bytes() == CONTENT


def test_slow_is_not_dead(far: Far, tmp_path: Path) -> None:
    """6 MB at 12 Mbit/s take four times as long as the timeout without progress."""
    far.there(
        "tc",
        "qdisc",
        "add",
        "dev",
        "far",
        "root",
        "tbf",
        "rate",
        "12mbit",
        "burst",
        "32k",
        "latency",
        "300ms",
    )
    options = ["--plain-http", "--timeout", "1", "--verify", "full"]
    with mounted(far.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        assert blob(mount.path).read_bytes() == CONTENT


def test_a_cut_cable_is_an_outage_and_a_mended_one_is_forgotten(far: Far, tmp_path: Path) -> None:
    options = ["--plain-http", "--timeout", "1"]
    with mounted(far.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        place = mount.path / "far/app/_manifests"
        descriptor = os.open(place / "v1/layers/0/blob", os.O_RDONLY)
        assert os.pread(descriptor, 100_000, 0) == CONTENT[:100_000]
        far.cut()
        with pytest.raises(OSError) as refused:
            os.pread(descriptor, 4096, len(CONTENT) - 4096)
        assert refused.value.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
        with pytest.raises(OSError) as refused:
            os.stat(place / "v2" / "digest")
        assert refused.value.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)  # never ENOENT
        assert (
            os.pread(descriptor, 100_000, 0) == CONTENT[:100_000]
        )  # cached content stays readable
        os.statvfs(mount.path)
        far.mend()
        assert until_read(descriptor) == CONTENT
        os.close(descriptor)


def test_readers_behind_a_cut_cable_can_be_killed(far: Far, tmp_path: Path) -> None:
    with mounted(far.host, tmp_path / "mnt", tmp_path / "cache", ["--plain-http"]) as mount:
        place = mount.path / "far/app/_manifests/v1"
        os.listdir(place)
        far.cut()
        commands = (
            ["cat", str(place / "layers/0/blob")],
            ["ls", "-l", str(mount.path / "far/other/_tags")],
        )
        callers = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in commands
        ]
        for caller in callers:
            wait_until_blocked(caller)
            caller.send_signal(signal.SIGKILL)
            caller.wait(25)  # an unkillable reader would wait for the timeout of 30 s


def until_read(descriptor: int) -> bytes:
    """Retry until the whole file can be read: the back-off has grown during the outage.

    A read that fails after its first bytes returns those, and the next read returns the error.
    """
    deadline, found = time.monotonic() + 75, b""
    while len(found) < len(CONTENT):
        try:
            piece = os.pread(descriptor, len(CONTENT), len(found))
        except OSError:
            assert time.monotonic() < deadline
            threading.Event().wait(0.3)  # there is no event for the network's return
        else:
            assert piece, "the file ends early"
            found += piece
    return found
