"""User files: only regular files are read, and files that others can change cause a warning."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocifs.registry.auth.source import find_credential
from ocifs.registry.auth.sources import standard_sources
from ocifs.settings import NetworkSettings, Settings
from ocifs.userfiles import read_user_file, unsafe_permissions
from tests.support.mount import run_ocifs
from tests.support.secrets import keep_secret


@pytest.fixture(autouse=True)
def _private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)


def special(place: Path) -> list[Path]:
    """What is not a regular file."""
    os.mkfifo(place / "fifo")
    (place / "link").symlink_to(place / "fifo")
    (place / "directory").mkdir()
    return [
        place / "fifo",
        place / "link",
        place / "directory",
        Path("/dev/zero"),
        Path("/dev/tty"),
    ]


def test_what_is_not_a_file_is_not_read(tmp_path: Path) -> None:
    for path in special(tmp_path):
        with pytest.raises(OSError):
            read_user_file(path, 10)
    (tmp_path / "file").write_bytes(b"x" * 20)
    assert read_user_file(tmp_path / "file", 10) == b"x" * 10


@pytest.mark.parametrize("variable", ["OCIFS_PASSWORD_FILE", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"])
async def test_credentials_that_are_no_file_hold_nothing_up(tmp_path: Path, variable: str) -> None:
    for path in special(tmp_path):
        environment = {"OCIFS_USERNAME": "me", variable: str(path), "HOME": str(tmp_path)}
        settings = Settings(network=NetworkSettings(named_host="a.example"))
        sources = standard_sources(settings, environment)
        assert await find_credential(sources, "a.example", "b") is None


@pytest.mark.parametrize("variable", ["OCIFS_CONFIG", "CONTAINERS_REGISTRIES_CONF"])
def test_configuration_that_is_no_file_holds_nothing_up(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in special(tmp_path):
        monkeypatch.setenv(variable, str(path))
        done = run_ocifs("ls", "oci:/nowhere", cache=tmp_path / "cache", check=False)
        assert done.returncode in (1, 2)
        assert done.stderr


@pytest.mark.parametrize(
    ("mode", "above", "wrong"),
    [
        (0o600, 0o700, ""),
        (0o644, 0o755, ""),
        (0o640, 0o1777, ""),
        (0o602, 0o700, "others can write to"),
        (0o666, 0o700, "others can write to"),
        (0o600, 0o777, "others can replace"),
    ],
)
def test_a_file_that_others_may_change_is_noticed(
    tmp_path: Path, mode: int, above: int, wrong: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = place / "file"
    path.write_text("{}")
    path.chmod(mode)
    place.chmod(above)
    assert unsafe_permissions(path)[: len(wrong) or None] == wrong


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_or_group_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("{}")
    os.chown(path, 65534, 0)
    assert "belongs to another user" in unsafe_permissions(path)
    os.chown(path, 0, 65534)
    path.chmod(0o660)
    assert "others can write to" in unsafe_permissions(path)


async def test_each_such_file_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "auth.json").write_text("{}")
    (tmp_path / "auth.json").chmod(0o666)
    (tmp_path / "password").write_text(keep_secret("a-loose-password"))
    (tmp_path / "password").chmod(0o606)
    environment = {
        "HOME": str(tmp_path),
        "OCIFS_USERNAME": "me",
        "OCIFS_PASSWORD_FILE": str(tmp_path / "password"),
    }
    network = NetworkSettings(authfile=tmp_path / "auth.json", named_host="a.example")
    sources = standard_sources(Settings(network=network), environment)
    for _ in range(3):
        for source in sources:
            await source.find("a.example", "b", refresh=False)
    warned = [item.getMessage() for item in caplog.records if "unsafe" in item.getMessage()]
    assert len(warned) == 2
    assert all(item.rpartition("go-w ")[2].startswith(str(tmp_path)) for item in warned)


def test_a_configuration_that_others_may_change_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("timeout = 7\n")
    path.chmod(0o666)
    monkeypatch.setenv("OCIFS_CONFIG", str(path))
    done = run_ocifs("config", "show", cache=tmp_path / "cache")
    assert b"unsafe permissions of the configuration file: others can write to" in done.stderr
    assert b"7" in done.stdout
