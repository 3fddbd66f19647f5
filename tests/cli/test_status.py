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

from ocifs.cli import status as status_command
from ocifs.cli.status import lines
from ocifs.fuse.mounts import parse_mountinfo
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
        assert f"{mount.path}  {registry.host}  mounted" in text
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


MIB = 1 << 20
PART = {"repository": "r", "digest": f"sha256:{'a' * 64}", "start": 0, "size": 286 * MIB}
TABLE = "".join(
    f"{number} 1 0:{number} / {path} ro shared:1 - fuse.ocifs r ro,{owner}\n"
    for number, (path, owner) in enumerate(
        [
            ("/a", "user_id=77,group_id=0"),
            ("/b", f"user_id={os.geteuid()},group_id=0,allow_other"),
            ("/c", "group_id=0,user_id=77"),
            ("/d", f"user_id={os.geteuid()}"),
        ]
    )
)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"cache": {"directory": "/c", "size": 3 * MIB, "limit": 30 * MIB}}, "3.0 MiB of 30.0 MiB"),
        (
            {"cache": {"directory": "/c", "size": 30 * MIB, "limit": 3 * MIB}},
            "cache: /c, 30.0 MiB used, above the limit of 3.0 MiB: content in use is not evicted",
        ),
        ({"cache": {"directory": "/c", "size": None, "limit": 3}}, "cache: /c\n"),
        (
            {"registries": [{"fetching": [{**PART, "stop": 286 * MIB, "received": 15 * MIB}]}]},
            f"r@sha256:{'a' * 12}…: 15.0 MiB of 286.0 MiB fetched\n",
        ),
        (
            {"registries": [{"fetching": [{**PART, "stop": 20 * MIB, "received": 15 * MIB}]}]},
            f"r@sha256:{'a' * 12}…: 15.0 MiB of 20.0 MiB fetched (a part of 286.0 MiB)\n",
        ),
        ({"registries": [{"fetches": 1}]}, "1 active fetch\n"),
    ],
)
def test_sizes_are_readable(status: dict[str, object], expected: str) -> None:
    assert expected in "\n".join([*lines(status), ""])


def test_own_mounts_come_first_with_words_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other states are those of `mount_state`."""
    states = {"/a": "EACCES", "/b": "dead", "/c": "EIO", "/d": "silent"}
    monkeypatch.setattr(status_command, "mounts", lambda: parse_mountinfo(TABLE))
    monkeypatch.setattr(status_command, "mount_state", lambda mount: states[str(mount.mountpoint)])
    status_command.command.main(["--json"], standalone_mode=False)
    rows = json.loads(capsys.readouterr().out)
    assert {row["mountpoint"]: row["state"] for row in rows} == states
    status_command.command.main([], standalone_mode=False)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("/")]
    assert shown == [
        "/b  r  dead",
        "/d  r  not responding",
        "/a  r  no access",
        "/c  r  input/output error",
    ]


@pytest.mark.mount
@pytest.mark.servers
def test_what_is_not_mounted_is_reported_with_the_mounts(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    text = "[mounts.{}]\nsource = 'reg.example.com'\nmountpoint = '{}'\n"
    config.write_text(text.format("work", tmp_path / "mnt") + text.format("idle", tmp_path / "x"))
    monkeypatch.setenv("OCIFS_CONFIG", str(config))

    def status(word: str) -> tuple[int, str, str]:
        done = run_ocifs("status", word, cache=tmp_path, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
        code, shown, message = status("work")
        assert (code, message) == (0, "") and f"{tmp_path}/mnt  {registry.host}  mounted" in shown
        code, shown, message = status(f"{tmp_path}/mtn")
        assert (code, shown) == (1, "") and message.count("\n") == 1
        assert f"not mounted: {tmp_path}/mtn; did you mean" in message
        assert f"{tmp_path}/mnt" in message
        assert status("idle") == (
            1,
            "",
            f"ocifs: not mounted: idle ({tmp_path}/x); mount it: `ocifs mount idle`\n",
        )
        code, shown, message = status("nosuch")
        assert (code, shown) == (1, "") and message.startswith("ocifs: not mounted: nosuch; ")


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
        f"{place}/mnt  {registry.host}  no access\n  mounted by another user"
        in said["status"].stdout
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
