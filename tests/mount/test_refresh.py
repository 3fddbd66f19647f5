"""A refresh shows what was pushed or deleted before it, at once: in lookups, listings and links."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.fuse.inodes import Inode
from ocifs.fuse.kernel_names import MAX_NAMES, KernelNames
from ocifs.tree.node import FOREVER
from tests.support.mount import Mounted, mounted, run_ocifs, wait_until_blocked
from tests.support.pushed import push_image
from tests.support.registry import Registry, running_registry

DEADLINE = 30.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as registry:
        push_image(registry.url, "team/app:1", {"x": b"old"})
        push_image(registry.url, "team/app:gone", {"x": b"gone"})
        yield registry


@pytest.fixture
def mount(registry: Registry, tmp_path: Path) -> Iterator[Mounted]:
    # Far longer than the test: only a refresh can show a change.
    options = ["--tag-ttl", "10000"]
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        yield mount


def delete(registry: Registry, repository: str, tag: str) -> None:
    """Delete a tag. The registry deletes a manifest, which no other tag must have."""
    link = registry.log.parent / "data/docker/registry/v2/repositories" / repository
    for path in sorted((link / "_manifests/tags" / tag).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (link / "_manifests/tags" / tag).rmdir()


def look(path: Path) -> dict[str, object]:
    """All views of the tags below a mount."""
    app = path / "team/app"
    return {
        "tags": sorted(os.listdir(app / "_tags")),
        "1": (app / "_tags/1/rootfs/x").read_bytes(),
        "colon": (path / "team/app:1/rootfs/x").read_bytes(),
        "gone": (app / "_tags/gone").exists(),
        "new": (app / "_tags/new").exists() and (path / "team/app:new").exists(),
        "repositories": sorted(os.listdir(path / "team")),
    }


BEFORE = {
    "tags": ["1", "gone"],
    "1": b"old",
    "colon": b"old",
    "gone": True,
    "new": False,
    "repositories": ["app"],
}
AFTER = {
    "tags": ["1", "new"],
    "1": b"new",
    "colon": b"new",
    "gone": False,
    "new": True,
    "repositories": ["app", "other"],
}


def change(registry: Registry) -> None:
    push_image(registry.url, "team/app:1", {"x": b"new"})
    push_image(registry.url, "team/app:new", {"x": b"new"})
    push_image(registry.url, "team/other:1", {"x": b"new"})
    delete(registry, "team/app", "gone")


@pytest.mark.mount
def test_a_refresh_shows_what_was_pushed_and_deleted_before_it(
    registry: Registry, mount: Mounted, tmp_path: Path
) -> None:
    assert look(mount.path) == BEFORE
    change(registry)
    assert look(mount.path) == BEFORE
    done = run_ocifs("refresh", str(mount.path), cache=tmp_path)
    assert look(mount.path) == AFTER
    assert (done.stdout, done.stderr) == (b"", b"")
    # Again, by the name in the configuration file, and from a directory of the mount.
    push_image(registry.url, "team/app:1", {"x": b"newer"})
    config = tmp_path / "config.toml"
    config.write_text(f"[mounts.work]\nsource = '{registry.host}'\nmountpoint = '{mount.path}'\n")
    environment = {**os.environ, "OCIFS_CONFIG": str(config)}
    for word in ("work", "."):
        subprocess.run(
            [sys.executable, "-m", "ocifs", "refresh", word],
            cwd=mount.path if word == "." else tmp_path,
            env=environment,
            check=True,
            timeout=60,
        )
    assert (mount.path / "team/app:1/rootfs/x").read_bytes() == b"newer"


@pytest.mark.mount
def test_sighup_refreshes_a_mount_and_does_not_end_it(registry: Registry, mount: Mounted) -> None:
    assert look(mount.path) == BEFORE
    change(registry)
    mount.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE
    while look(mount.path) != AFTER:
        assert mount.process.poll() is None and time.monotonic() < deadline
        mount.process.send_signal(signal.SIGHUP)


@pytest.mark.mount
def test_a_daemon_is_refreshed_by_sighup(registry: Registry, tmp_path: Path) -> None:
    place = tmp_path / "daemon"
    place.mkdir()
    run_ocifs("mount", registry.host, str(place), "--tag-ttl", "10000", cache=tmp_path / "cache")
    try:
        assert look(place) == BEFORE
        change(registry)
        pid = json.loads((place / ".ocifs/status.json").read_text())["pid"]
        deadline = time.monotonic() + DEADLINE
        os.kill(pid, signal.SIGHUP)
        while look(place) != AFTER:
            assert time.monotonic() < deadline
            os.kill(pid, signal.SIGHUP)
    finally:
        run_ocifs("umount", str(place), cache=tmp_path / "cache")


@pytest.mark.mount
def test_many_refreshes_while_others_read_neither_hang_nor_fail(
    registry: Registry, mount: Mounted
) -> None:
    ended = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not ended.is_set():
            try:
                look(mount.path)
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(50):
        assert (mount.path / ".ocifs/refresh").read_bytes() == b"refreshed\n"
    ended.set()
    for reader in readers:
        reader.join(DEADLINE)
        assert not reader.is_alive()
    assert not failures


@pytest.mark.mount
def test_a_refresh_waits_for_a_slow_lookup_and_the_mount_still_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        options = ["--timeout", "2", "--any"]
        with mounted((), tmp_path / "mnt", tmp_path / "cache", options) as mount:
            os.listdir(mount.path)
            with subprocess.Popen(["stat", mount.path / host / "a/_tags/b"]) as reader:
                wait_until_blocked(reader)
                assert (mount.path / ".ocifs/refresh").read_bytes() == b"refreshed\n"
                assert reader.wait(DEADLINE) != 0
            slow = subprocess.Popen(["stat", mount.path / host / "c/_tags/d"])
            wait_until_blocked(slow)
    # The end of the block checks that the mount ends.
    assert slow.wait(DEADLINE) != 0


@pytest.mark.mount
def test_a_mount_in_the_foreground_ends_with_its_terminal(
    registry: Registry, tmp_path: Path
) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    pid, terminal = pty.fork()
    if not pid:
        os.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
        command = [sys.executable, "-m", "ocifs", "mount", "-f", registry.host, str(place)]
        os.execv(command[0], command)
    deadline = time.monotonic() + DEADLINE
    while not os.path.ismount(place):
        assert time.monotonic() < deadline
        os.read(terminal, 1 << 16)
    # With a terminal that is open, SIGHUP refreshes.
    os.kill(pid, signal.SIGHUP)
    assert look(place) == BEFORE
    os.close(terminal)
    assert os.waitpid(pid, 0)[0] == pid
    assert not os.path.ismount(place)


@pytest.mark.mount
def test_no_listing_contains_the_file_that_refreshes(mount: Mounted) -> None:
    assert "refresh" not in os.listdir(mount.path / ".ocifs")
    assert (mount.path / ".ocifs/refresh").stat().st_size == 0


@pytest.mark.mount
@pytest.mark.parametrize("options", [[], ["--view", "rootfs"]])
def test_a_mount_of_one_reference_stays_bound_to_its_manifest(
    options: list[str], registry: Registry, tmp_path: Path
) -> None:
    place = tmp_path / "one"
    with mounted(f"{registry.host}/team/app:1", place, tmp_path / "cache", options):
        change(registry)
        run_ocifs("refresh", str(place), cache=tmp_path)
        assert (place / ("x" if options else "rootfs/x")).read_bytes() == b"old"


def test_what_is_not_a_mount_cannot_be_refreshed(tmp_path: Path) -> None:
    done = run_ocifs("refresh", str(tmp_path), cache=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ocifs: not an ocifs mount: {tmp_path}".encode())


def test_names_are_recorded_until_their_lifetime_is_over() -> None:
    now = 0.0
    names = KernelNames(lambda: now)
    names.record(Inode(5), b"forever", FOREVER)
    names.record(Inode(5), b"never", 0.0)
    names.record(Inode(5), b"short", 1.0)
    names.record(Inode(5), b"long", 60.0)
    now = 2.0
    assert names.take() == {5: [b"long"]}
    assert names.take() == {}


def test_the_oldest_names_are_dropped_first() -> None:
    names = KernelNames(lambda: 0.0)
    for number in range(MAX_NAMES + 10):
        names.record(Inode(5), b"%d" % number, 60.0)
    taken = names.take()
    assert len(taken[Inode(5)]) == MAX_NAMES and taken[Inode(5)][0] == b"10"


def test_expired_names_do_not_add_up() -> None:
    now = 0.0
    names = KernelNames(lambda: now)
    for number in range(20_000):
        now += 0.01
        names.record(Inode(5), b"%d" % number, 1.0)
        assert len(names) <= 3_000
