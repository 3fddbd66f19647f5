"""Busy mounts, and mounts without a daemon."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.test_registry_mount import push_files
from tests.support.mount import mounted, run_ocifs
from tests.support.registry import Registry
from tests.support.waiting import unmount

pytestmark = [pytest.mark.mount, pytest.mark.servers]

HOLD = {
    "stands in it": "import os, sys; os.chdir(sys.argv[1]); print(flush=True); sys.stdin.read()",
    "has a file open": (
        "import sys; file = open(sys.argv[1] + '/kind'); print(flush=True); sys.stdin.read()"
    ),
    "has a file mapped": (
        "import mmap, os, sys; fd = os.open(sys.argv[1] + '/layers/0/blob', os.O_RDONLY); "
        "held = mmap.mmap(fd, 0, prot=mmap.PROT_READ); os.close(fd); print(flush=True); "
        "sys.stdin.read()"
    ),
}


@pytest.fixture(scope="module")
def source(registry: Registry) -> str:
    push_files(registry, "busy/app", "v1", b"x" * mmap.PAGESIZE)
    return f"{registry.host}/busy/app:v1"


@pytest.mark.parametrize("how", HOLD)
def test_umount_names_the_users_of_a_busy_mount_and_detaches_it_lazily(
    source: str, tmp_path: Path, how: str
) -> None:
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
        command = [sys.executable, "-c", HOLD[how], str(mount.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None and holder.stdin is not None
            holder.stdout.readline()
            refused = run_ocifs("umount", str(mount.path), cache=tmp_path, check=False)
            assert refused.returncode == 2
            # Python's mmap has its own descriptor beside the mapping
            assert any(
                f"(pid {holder.pid}, {each})" in refused.stderr.decode()
                for each in (how, "has a file open")
            )
            assert sys.executable in refused.stderr.decode()
            assert (mount.path / "kind").read_text() == "artifact\n"
            run_ocifs("umount", "--lazy", str(mount.path), cache=tmp_path)
            assert not os.path.ismount(mount.path)
            holder.stdin.close()


def test_a_busy_dead_mount_is_unmounted_and_replaced(source: str, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
        held = os.open(mount.path / "kind", os.O_RDONLY)
        try:
            mount.kill()
            with pytest.raises(OSError) as refused:
                os.listdir(mount.path)
            assert refused.value.errno == errno.ENOTCONN
            run_ocifs("mount", source, str(mount.path), cache=tmp_path / "cache")
            assert (mount.path / "kind").read_text() == "artifact\n"
            run_ocifs("umount", str(mount.path), cache=tmp_path)
            assert os.listdir(mount.path) == []
        finally:
            with contextlib.suppress(OSError):  # the daemon is dead
                os.close(held)


def test_umount_ends_a_dead_mount_and_status_calls_it_dead(source: str, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
        mount.kill()
        assert (
            f"{mount.path}  {source}  dead" in run_ocifs("status", cache=tmp_path).stdout.decode()
        )
        run_ocifs("umount", str(mount.path), cache=tmp_path)
        assert os.listdir(mount.path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount below another mount")
def test_a_mount_below_is_named(source: str, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
        below = mount.path / "annotations"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], check=True)
        try:
            refused = run_ocifs("umount", str(mount.path), cache=tmp_path, check=False)
            assert f"the mount at {below}" in refused.stderr.decode()
        finally:
            unmount(below)


@pytest.mark.skipif(os.geteuid() != 0, reason="what fusermount3 allows others differs")
def test_auto_unmount_takes_away_the_mount_of_a_daemon_that_was_killed(
    source: str, tmp_path: Path
) -> None:
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", ["--auto-unmount"]) as mount:
        assert (mount.path / "kind").read_text() == "artifact\n"
        mount.kill()
        deadline = time.monotonic() + 60
        while (
            os.path.lexists(mount.path)
            and str(mount.path) in Path("/proc/self/mountinfo").read_text()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)  # the helper has no event for this
        assert os.listdir(mount.path) == []
