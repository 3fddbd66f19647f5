"""The configuration file: precedence, errors, and named mounts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.mount import run_ocifs
from tests.support.registry import Registry


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "ocifs" / "config.toml"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return path


def shown(tmp_path: Path, *name: str) -> dict[str, tuple[object, str]]:
    said = json.loads(run_ocifs("config", "show", "--json", *name, cache=tmp_path).stdout)
    return {row["option"]: (row["value"], row["from"]) for row in said["options"]}


def test_environment_wins_over_file_and_file_over_default(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(
        "timeout = 7\ntag-ttl = 8\nrepo = ['a', 'b']\n"
        "[mounts.work]\nsource = 'r.example.com'\nmountpoint = '/mnt/w'\ntag_ttl = 9\n"
    )
    monkeypatch.setenv("OCIFS_TIMEOUT", "3.5")
    assert shown(tmp_path)["timeout"] == (3.5, "environment: OCIFS_TIMEOUT")
    assert shown(tmp_path)["tag-ttl"] == (8.0, str(config))
    assert shown(tmp_path)["repo"] == (["a", "b"], str(config))
    assert shown(tmp_path)["max-wait"] == (300.0, "default")
    assert shown(tmp_path, "work")["tag-ttl"] == (9.0, f"{config}: mounts.work")
    assert shown(tmp_path, "work")["source"] == ("r.example.com", f"{config}: mounts.work")


def test_the_command_line_wins(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("platform = 'file/wrong/variant/x'\n")
    monkeypatch.setenv("OCIFS_OWNER", "nobody-knows")
    refused = run_ocifs("ls", "127.0.0.1:1", cache=tmp_path, check=False)
    assert (refused.returncode, b"--owner" in refused.stderr) == (2, True)
    refused = run_ocifs(
        "ls",
        "--owner",
        "keep",
        "--platform",
        "linux/arm64",
        "127.0.0.1:1/a/b:c",
        cache=tmp_path,
        check=False,
    )
    assert (refused.returncode, b"refuses connections" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timeout = \nrepo = []", "line 1"),
        ("timout = 3", "unknown option: timout\n  did you mean timeout?"),
        ("timeout = 'soon'", "timeout: not a number of seconds: soon"),
        ("timeout = -1", "timeout: not a number of seconds: -1"),
        ("timeout = [1]", "timeout: expected one value"),
        ("repo = 'a'", "repo: expected a list"),
        ("offline = 'yes'", "offline: expected true or false: 'yes'"),
        ("verify = 'never'", "verify: 'never' is not one of"),
        ("source = 'x'", "unknown option: source"),
        ("mounts = 3", "mounts is not a table"),
        ("[mounts.work]\nmountpoint = '/x'", "mounts.work: missing source"),
        ("any = true", "unknown option: any"),
        ("[mounts.work]\nany = false", "mounts.work: missing source"),
        (
            "[mounts.work]\nsource = 'x'\nsources = ['y']",
            "mounts.work: both source and sources are set",
        ),
        ("[mounts.work]\nsources = 'y'", "mounts.work: sources is not a list of strings"),
        ("[mounts.work]\nsources = []", "mounts.work: sources is not a list of strings"),
        (
            "[mounts.work]\nsource = 'x'\nplatfrom = 'y'",
            "mounts.work: unknown option: platfrom\n  did you mean platform?",
        ),
        ("a = " + "[" * 5000, "config.toml: "),
    ],
)
def test_what_is_wrong_is_told_by_its_place(
    config: Path, tmp_path: Path, text: str, said: str
) -> None:
    config.write_text(text)
    done = run_ocifs("ls", "127.0.0.1:1", cache=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"ocifs: {config}: ") and said in done.stderr.decode()
    run_ocifs("status", cache=tmp_path)  # a command without options does not read the file


def test_a_mount_by_its_name(config: Path, registry: Registry, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    config.write_text(f"[mounts.work]\nsource = '{registry.host}'\nmountpoint = '{place}'\n")
    run_ocifs("mount", "work", cache=tmp_path / "cache")
    try:
        assert ".ocifs" in os.listdir(place)
    finally:
        run_ocifs("umount", str(place), cache=tmp_path)
    refused = run_ocifs("mount", "play", cache=tmp_path, check=False)
    assert refused.returncode == 2 and b"available: work" in refused.stderr
