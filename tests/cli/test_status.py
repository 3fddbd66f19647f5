"""`ocifs status` with real mounts, `--watch` and colours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.mount import mounted, run_ocifs
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]


@pytest.mark.mount
@pytest.mark.servers
def test_a_watch_sees_a_mount_come(registry: Registry, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ocifs", "status", "--watch", "--json", "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            before = json.loads(process.stdout.readline())
            with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
                seen = next(
                    rows for rows in map(json.loads, process.stdout) if _here(rows, tmp_path)
                )
        finally:
            process.terminate()
    assert not _here(before, tmp_path)
    (row,) = _here(seen, tmp_path)
    assert (row["source"], row["state"], row["status"]["source"]) == (
        registry.host,
        "answers",
        registry.host,
    )


def _here(rows: list[dict[str, object]], place: Path) -> list[dict[str, object]]:
    return [row for row in rows if row["mountpoint"] == str(place / "mnt")]


@pytest.mark.mount
@pytest.mark.servers
def test_people_see_the_registry_the_cache_and_what_to_do_with_a_dead_mount(
    registry: Registry, tmp_path: Path
) -> None:
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        list(mount.path.iterdir())
        text = run_ocifs("status", cache=tmp_path).stdout.decode()
        assert f"{mount.path}  {registry.host}  answers" in text
        assert f"{registry.host}: reachable" in text
        assert f"cache: {tmp_path}/cache/ocifs" in text
        assert f"by process {mount.process.pid} " in text
        mount.kill()
        text = run_ocifs("status", cache=tmp_path).stdout.decode()
        assert f"remove the mount: `ocifs umount {mount.path}`" in text


@pytest.mark.mount
@pytest.mark.servers
def test_a_mount_that_is_named_has_to_answer(registry: Registry, tmp_path: Path) -> None:
    def status(*places: Path) -> tuple[int, list[str]]:
        done = run_ocifs("status", "--json", *map(str, places), cache=tmp_path, check=False)
        return done.returncode, [row["state"] for row in json.loads(done.stdout)]

    (tmp_path / "none").mkdir()
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
        assert status(tmp_path / "link/mnt") == (0, ["answers"])
        assert status(mount.path, tmp_path / "none") == (1, ["answers"])
        assert status(tmp_path / "none") == (1, [])
        mount.kill()
        assert status(mount.path) == (1, ["dead"])


@pytest.mark.mount
@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_mount_of_another_user_is_called_so_and_is_nothing_to_put_right(
    registry: Registry,
) -> None:
    place = Path(
        tempfile.mkdtemp(prefix="ocifs-status-")
    )  # pytest's directories are closed to other users
    place.chmod(0o755)
    (place / "home").mkdir()
    shutil.chown(place / "home", "nobody")
    nobody = [
        "setpriv",
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
        "env",
        f"HOME={place}/home",
    ]
    try:
        with mounted(registry.host, place / "mnt", place / "cache"):
            said = {
                name: subprocess.run(
                    [*nobody, sys.executable, "-m", "ocifs", name],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                for name in ("status", "doctor")
            }
    finally:
        shutil.rmtree(place)
    if said["status"].returncode not in (0, 1):
        pytest.skip("others may not read this clone")
    assert (
        f"{place}/mnt  {registry.host}  EACCES\n  mounted by another user" in said["status"].stdout
    )
    assert f"{place}/mnt" not in said["doctor"].stdout


@pytest.mark.parametrize(("more", "coloured"), [({}, False), ({"CLICOLOR_FORCE": "1"}, True)])
def test_errors_have_colours_where_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    assert (
        b"\033[" in run_ocifs("ls", "127.0.0.1:1", cache=tmp_path, check=False).stderr
    ) == coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\033[" not in run_ocifs("ls", "127.0.0.1:1", cache=tmp_path, check=False).stderr


def test_a_terminal_gets_colours_unless_it_says_no(tmp_path: Path) -> None:
    for more, expected in (
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ):
        primary, secondary = os.openpty()
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NO_COLOR", "CLICOLOR_FORCE")
        }
        command = [sys.executable, "-m", "ocifs", "ls", "127.0.0.1:1", "--cache-dir", str(tmp_path)]
        subprocess.run(
            command, stderr=secondary, env={**environment, **more}, check=False, timeout=60
        )
        said = os.read(primary, 4096)
        os.close(primary)
        os.close(secondary)
        assert b"refuses connections" in said
        assert (b"\033[31m" in said) == expected


def test_help_imports_nothing_that_takes_long() -> None:
    """`ocifs --help` may take 0.15 s, and importing any of these takes more than half of that."""
    code = (
        "import sys; from ocifs.cli.main import group\n"
        "try: group(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('trio', 'httpx', 'pyfuse3', 'ssl', 'asyncio', 'cachetools', 'fsspec'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_a_mount_may_never_need_is_loaded_when_it_is_needed() -> None:
    code = (
        "import sys, ocifs.app; heavy = ('flatbuffers', 'numpy', 'prometheus_client'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
