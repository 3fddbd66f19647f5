"""What users of other tools type first: options, commands and names of mounts."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ocifs.cli.main import COMMANDS
from ocifs.cli.mount import command as mount
from ocifs.cli.mount_options import hint_for, translate
from tests.support.mount import run_ocifs
from tests.support.pushed import push_image
from tests.support.registry import Registry
from tests.support.secrets import keep_secret


@pytest.fixture(scope="module")
def image(registry: Registry) -> str:
    push_image(registry.url, "typed/app:1", {"etc/app.conf": b"x"})
    return f"{registry.host}/typed/app"


def lines(*words: str, cache: Path) -> tuple[int, str]:
    done = run_ocifs(*words, cache=cache, check=False)
    return done.returncode, done.stderr.decode()


OTHER_COMMANDS = [
    ("pull", "ocifs prefetch REFERENCE"),
    ("cp", "ocifs cat SOURCE PATH"),
    ("diff", "diff -r"),
    ("catalog", "ocifs ls HOST"),
    ("list-tags", "ocifs tags REPOSITORY"),
    ("push", "ocifs only reads"),
    ("unmount", "ocifs umount"),
    ("mont", "did you mean mount or umount?"),
    ("frobnicate", "available: mount, "),
]


@pytest.mark.parametrize(("command", "hint"), OTHER_COMMANDS)
def test_commands_of_other_tools_are_answered(command: str, hint: str, tmp_path: Path) -> None:
    status, text = lines(command, "x", cache=tmp_path)
    assert status == 2 and hint in text and "and 1 more" not in text


def test_every_command_is_listed_if_none_is_similar(tmp_path: Path) -> None:
    _, text = lines("frobnicate", cache=tmp_path)
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("verb", ["login", "logout"])
def test_login_names_the_command_of_an_installed_tool(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("crane", "oras"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    password = keep_secret("typed-password")
    words = (verb, "-u", "me", "-p", password, "--tls-verify=false", "reg.example.com")
    status, text = lines(*words, cache=tmp_path)
    assert status == 2 and password not in text
    assert f"`crane auth {verb} reg.example.com`" in text and "podman" not in text
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"`podman {verb} HOST`" in lines(verb, cache=tmp_path)[1]


def test_help_and_version_answer_as_commands_and_as_options(tmp_path: Path) -> None:
    for command, option in (
        (["help"], ["--help"]),
        (["help", "ls"], ["ls", "--help"]),
        (["help", "cache", "pin"], ["cache", "pin", "--help"]),
        (["version"], ["--version"]),
        (["version"], ["-V"]),
    ):
        shown = run_ocifs(*command, cache=tmp_path).stdout
        assert shown == run_ocifs(*option, cache=tmp_path).stdout and shown
    status, text = lines("help", "lss", cache=tmp_path)
    assert status == 2 and "did you mean ls" in text


def test_help_lists_the_commands_in_sections(tmp_path: Path) -> None:
    shown = run_ocifs("--help", cache=tmp_path).stdout.decode()
    order = [shown.index(f"\n  {name} ") for name in ("mount", "ls", "tags", "find", "cache")]
    assert order == sorted(order)
    assert re.search(r"^Without a mount:$", shown, re.MULTILINE)


@pytest.mark.servers
def test_verbose_commands_log_requests_without_secrets(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A setting for mounts does not make commands verbose.
    monkeypatch.setenv("OCIFS_VERBOSE", "1")
    for number, words in enumerate(
        [
            ["ls", image, "_tags"],
            ["tags", image],
            ["tree", image],
            ["cat", f"{image}:1/kind"],
            ["inspect", f"{image}:1"],
            ["find", image],
            ["prefetch", f"{image}:1"],
            ["export", f"{image}:1", f"oci:{tmp_path}/out"],
            ["cache", "pin", f"{image}:1"],
        ]
    ):
        command, *rest = words
        options = ["pin", "-v"] if command == "cache" else ["-v"]
        rest = rest[1:] if command == "cache" else rest
        status, text = lines(command, *options, *rest, cache=tmp_path / str(number))
        assert status == 0, text
        host = image.partition("/")[0]
        assert re.search(rf"^ocifs: (GET|HEAD) {host}/v2/typed/app/\S+: 200 in ", text, re.M), words
        assert "authorization" not in text.lower()
        quiet = lines(*words, cache=tmp_path / f"quiet{number}")[1]
        assert " 200 in " not in quiet, words


OPTIONS = [
    ("ro,noatime,nosuid,nodev,default_permissions,nonempty,_netdev,x-a.b=c", []),
    (
        "allow_other,uid=1000,gid=5,umask=077",
        ["--allow-other", "--uid=1000", "--gid=5", "--umask=077"],
    ),
    ("tag-ttl=5,cache_size=1G,plain_http", ["--tag-ttl=5", "--cache-size=1G", "--plain-http"]),
    ("user,exec", []),
    ("fsname=x,subtype=y", ["--fsname=x"]),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS)
def test_options_of_mount8_become_options(options: str, words: list[str]) -> None:
    assert translate(options, mount.params) == words


WRONG = [
    (["-o", "allow_root"], "use --allow-other"),
    (["-o", "ro,debug"], "use --foreground -vv"),
    (["-o", "dir_mode=0700"], "use --umask"),
    (["-o", "alow_other"], "did you mean allow_other?"),
    (["-o", "uid"], "uid needs a value"),
    (["-o", "allow_other=1"], "allow_other takes no value"),
    (["-o", "uid=me"], "use a number"),
    (["-o", "umask=9"], "use octal digits"),
    (["-o", "umask=7777"], "use octal digits"),
    (["-o", "uid=4294967295"], "use a number"),
    (["-o", "foreground"], "unknown option: foreground"),
    (["-o", "mount_options=x"], "unknown option: mount_options"),
    (["--daemon"], "in the background by default"),
    (["--debug"], "use --foreground -vv"),
    (["--allow-root"], "use --allow-other"),
    (["--dir-cache-time", "5s"], "ocifs refresh MOUNTPOINT"),
    (["--vfs-cache-mode=full"], "--cache-dir and --cache-size"),
    (["--forground"], "--foreground"),
]


@pytest.mark.parametrize(("options", "hint"), WRONG)
def test_options_that_do_not_exist_are_answered(
    options: list[str], hint: str, tmp_path: Path
) -> None:
    status, text = lines("mount", *options, "reg.example.com", str(tmp_path), cache=tmp_path)
    assert status == 2 and hint in text, text
    assert text.startswith("ocifs: ") and "Traceback" not in text


def test_a_hint_names_options_that_exist() -> None:
    known = {name for param in mount.params for name in param.opts}
    for option in ("daemon", "debug", "dir_mode", "cache", "volname", "insecure", "poll-interval"):
        for named in re.findall(r"--[a-z-]+", hint_for(option)):
            assert named in known, option


@pytest.mark.mount
def test_a_mount_takes_options_of_mount8_and_its_name_ends_it(
    registry: Registry, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f"[mounts.work]\nsource = '{registry.host}'\nmountpoint = '{place}'\n")
    monkeypatch.setenv("OCIFS_CONFIG", str(config))
    status, text = lines("umount", "work", cache=tmp_path)
    assert status == 2 and f"not mounted: work ({place})" in text and "ocifs mount work" in text
    options = "ro,noatime,uid=1234,gid=5,umask=027,fsname=typed"
    run_ocifs("mount", "--read-only", "-o", options, "work", cache=tmp_path / "cache")
    try:
        found = {}
        for name in ("", "typed", "typed/app/_tags/1", "typed/app/_tags/1/rootfs/etc/app.conf"):
            status_of = os.lstat(place / name)
            found[name] = (status_of.st_uid, status_of.st_gid, oct(status_of.st_mode & 0o777))
        assert found == {
            "": (1234, 5, "0o550"),
            "typed": (1234, 5, "0o550"),
            "typed/app/_tags/1": (1234, 5, "0o777"),
            "typed/app/_tags/1/rootfs/etc/app.conf": (1234, 5, "0o640"),
        }
        assert (
            "typed"
            in subprocess.run(
                ["findmnt", "-no", "SOURCE", place],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
        )
    finally:
        run_ocifs("umount", "work", cache=tmp_path)
    assert not os.path.ismount(place)


@pytest.mark.servers
def test_an_image_for_another_platform_is_a_warning(image: str, tmp_path: Path) -> None:
    wanted = ("--platform", "linux/arm64")
    for words in (
        ["cat", f"{image}:1/kind"],
        ["cat", image, "_tags/1/kind"],
        ["ls", f"{image}:1/rootfs"],
        ["inspect", f"{image}/_tags/1"],
        ["export", f"{image}:1", f"oci:{tmp_path}/out"],
    ):
        status, text = lines(words[0], *wanted, *words[1:], cache=tmp_path / "cache")
        assert status == 0
        assert text.count("the image is for linux/amd64, not for linux/arm64: sha256:") == 1, words
        status, text = lines(words[0], "--platform", "linux/amd64", *words[1:], cache=tmp_path)
        assert status == 0 and "the image is for" not in text
    assert "the image is for" not in lines("cat", f"{image}:1/kind", cache=tmp_path)[1]
