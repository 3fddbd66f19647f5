"""A mount's process and files are private: signals, core dumps, umask, control files, logs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ocifs.fuse.session import _ENDING
from scripts.example import make
from tests.support.mount import mounted, run_ocifs

pytestmark = pytest.mark.mount
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def layout(tmp_path: Path) -> str:
    make(tmp_path / "example")
    tmp_path.chmod(0o755)
    return f"oci:{tmp_path}/example"


@pytest.mark.parametrize("number", _ENDING, ids=lambda number: number.name)
def test_a_signal_leaves_no_dead_mount(layout: str, tmp_path: Path, number: signal.Signals) -> None:
    with mounted(layout, tmp_path / "mnt", tmp_path / "cache") as mount:
        mount.process.send_signal(number)
        mount.process.wait(60)
        assert os.listdir(mount.path) == []
        assert not os.path.ismount(mount.path)


def test_a_daemon_outlives_the_terminal(layout: str, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    run_ocifs("mount", layout, str(tmp_path / "mnt"), cache=tmp_path / "cache")
    try:
        status = (tmp_path / "mnt/.ocifs/status.json").read_text()
        pid = int(status.partition('"pid": ')[2].partition(",")[0])
        os.kill(pid, signal.SIGHUP)
        assert "_tags" in os.listdir(tmp_path / "mnt")
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == [
            "0",
            "0",
        ]
    finally:
        run_ocifs("umount", str(tmp_path / "mnt"), cache=tmp_path / "cache")


def test_nothing_that_is_made_can_be_written_by_others(layout: str, tmp_path: Path) -> None:
    """With umask 0, this holds for the cache, its parent directories, an export and a log."""
    (tmp_path / "mnt").mkdir()
    home, out = tmp_path / "home/deep", tmp_path / "out/deep"
    script = f"""umask 0
    ocifs() {{ "{sys.executable}" -m ocifs "$@"; }}
    ocifs ls {layout}:1.0 rootfs && ocifs export {layout}:1.0 oci:{out}
    ocifs cache pin sha256:{"0" * 64}
    ocifs mount --log-file {tmp_path}/log {layout} {tmp_path}/mnt && ocifs umount {tmp_path}/mnt
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    subprocess.run(
        ["sh", "-ec", script], env=environment, check=True, capture_output=True, timeout=100
    )
    made = [
        path
        for top in ("home", "out", "log")
        for path in (tmp_path / top, *(tmp_path / top).rglob("*"))
    ]
    assert len(made) > 10
    assert [path for path in made if path.stat().st_mode & 0o022] == []
    assert [path for path in (home / "ocifs").rglob("*") if path.stat().st_mode & 0o077] == []


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to be somebody else"
)
def test_only_the_mounting_user_can_read_the_control_files(layout: str, tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as place,  # other users can enter it, unlike tmp_path
        mounted(layout, Path(place) / "mnt", tmp_path / "cache", ["--allow-other"]) as mount,
    ):
        Path(place).chmod(0o755)
        for name in ("status.json", "errors", "version"):
            path = mount.path / ".ocifs" / name
            assert path.read_bytes() or name == "errors"
            assert not path.stat().st_mode & 0o044
            seen = subprocess.run(
                [*NOBODY, "cat", path], capture_output=True, check=False, timeout=60
            )
            assert (seen.returncode, seen.stdout) == (1, b"")
        seen = subprocess.run(
            [*NOBODY, "ls", mount.path / "_tags"], capture_output=True, check=False, timeout=60
        )
        assert (seen.returncode, b"1.0" in seen.stdout) == (0, True)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo", "directory"])
def test_a_log_is_not_written_to_a_file_of_another_user(
    layout: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "mnt").mkdir()
    victim, log = tmp_path / "victim", tmp_path / "log"
    if kind != "dangling link":
        victim.write_text("victim\n")
    if kind == "hard link":
        log.hardlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(log)
    elif kind == "directory":
        log.mkdir()
    else:
        log.symlink_to(victim)
    done = run_ocifs(
        "mount",
        "-v",
        "--log-file",
        str(log),
        layout,
        str(tmp_path / "mnt"),
        cache=tmp_path / "cache",
        check=False,
    )
    assert done.returncode == 2
    assert b"cannot write the log to" in done.stderr
    assert not victim.exists() if kind == "dangling link" else victim.read_text() == "victim\n"
    assert not os.path.ismount(tmp_path / "mnt")
