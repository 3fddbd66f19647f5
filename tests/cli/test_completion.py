"""Completion in real shells: bash and zsh with Tab on a terminal, fish with `complete -C`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocifs.cli.completion import SHELLS, script
from tests.support.archives import archive_of, saved
from tests.support.push import push_blob, push_manifest
from tests.support.pushed import push_image
from tests.support.registry import Registry
from tests.support.silent import silent_server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A home directory with only the scripts, and `ocifs` on the PATH."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ocifs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ocifs "$@"\n')
    program.chmod(0o755)
    for shell in SHELLS:
        (tmp_path / shell).write_text(script(shell))
    (tmp_path / "zshrc").write_text(
        f"autoload -U compinit; compinit -u -D\nsource {tmp_path}/zsh\nunsetopt beep\n"
    )
    return tmp_path


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} must be there in CI: see scripts/setup"
        pytest.skip(f"{name} is not installed")
    return found


def environment(place: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    own = {
        "HOME": str(place),
        "TERM": "dumb",
        "PS1": "> ",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
    }
    return {**kept, **own, "PATH": f"{place}/bin:{kept['PATH']}"}


class Terminal:
    """Types at a shell, and reads its output."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.seen = b""

    def types(self, text: str) -> None:
        os.write(self._file, text.encode())

    def sees(self, text: str) -> None:
        """Wait until new output contains a text."""
        deadline = time.monotonic() + 60
        while text.encode() not in self.seen:
            assert select.select([self._file], [], [], max(0, deadline - time.monotonic()))[0], (
                self.seen
            )
            self.seen += os.read(self._file, 4096)
        self.seen = self.seen.partition(text.encode())[2]


COMMANDS = {"bash": ["--noprofile", "--norc", "-i"], "zsh": ["-f", "-i"]}
BEGIN = {
    "bash": "bind 'set bell-style none' 'set show-all-if-ambiguous on' "
    "'set enable-bracketed-paste off'; source ~/bash; echo rea''dy\n",
    "zsh": "source ~/zshrc; echo rea''dy\n",
}


@contextmanager
def terminal(name: str, place: Path) -> Iterator[Terminal]:
    program = shell(name)
    child, file = pty.fork()
    if not child:
        os.chdir(place)
        os.execve(program, [program, *COMMANDS[name]], environment(place))
    try:
        fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 300, 0, 0))
        typing = Terminal(file)
        typing.types("stty cols 300\n" + BEGIN[name])
        typing.sees("ready")
        yield typing
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(file)


@pytest.fixture
def pushed(registry: Registry) -> Registry:
    config = push_blob(registry.url, "completion/app", b"{}")
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": config,
        "size": 2,
    }
    for tag in ("first-1.0", "second"):
        push_manifest(
            registry.url,
            "completion/app",
            {"schemaVersion": 2, "mediaType": kind, "config": descriptor, "layers": []},
            tag,
        )
    return registry


@pytest.mark.servers
@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_the_key_completes_commands_options_repositories_tags_and_paths(
    name: str, place: Path, pushed: Registry
) -> None:
    with terminal(name, place) as typing:
        typing.types("ocifs prefe\t")
        typing.sees("prefetch ")
        typing.types("--tag-t\t")
        typing.sees("--tag-ttl ")
        typing.types(f"5 {pushed.host}/compl\t")
        typing.sees("completion/")
        typing.types("ap\t")
        typing.sees("app")
        typing.types(":fi\t")
        typing.sees("first-1.0 ")
        typing.types("artifact-t\t")
        typing.sees("artifact-type ")


@pytest.mark.servers
def test_fish_completes_the_same(place: Path, pushed: Registry) -> None:
    program = shell("fish")

    def asked(line: str) -> list[str]:
        command = f"source {place}/fish; complete -C '{line}'"
        done = subprocess.run(
            [program, "-N", "-c", command],
            env=environment(place),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert "prefetch" in asked("ocifs prefe")
    assert asked("ocifs ls --tag-t") == ["--tag-ttl"]
    assert asked(f"ocifs ls {pushed.host}/completion/a") == [f"{pushed.host}/completion/app"]
    tags = [f"{pushed.host}/completion/app:{tag}" for tag in ("first-1.0", "second")]
    assert asked(f"ocifs ls {pushed.host}/completion/app") == [
        f"{pushed.host}/completion/app",
        *tags,
    ]
    assert asked(f"ocifs ls {pushed.host}/completion/app:") == tags
    assert asked(f"ocifs cat {pushed.host}/completion/app:second mani") == ["manifest.json"]


def candidates(place: Path, line: str, **more: str) -> list[str]:
    """The variables of bash's function."""
    command = [sys.executable, "-m", "ocifs"]
    asked = {**environment(place), "_OCIFS_COMPLETE": "bash_complete", "COMP_WORDS": line, **more}
    done = subprocess.run(
        command, env=asked, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.servers
def test_words_are_completed_where_they_stand(place: Path, registry: Registry) -> None:
    push_image(registry.url, "tab/app:1.0", {"etc/app.conf": b"x", "opt/y": b"y"})
    push_image(registry.url, "tab/app:2.0", {"etc/app.conf": b"x"})
    push_image(registry.url, "tab/below/it:1", {"x": b"x"})
    host, port = registry.host, registry.host.partition(":")[2]
    colon = {"OCIFS_BREAKS": ":="}

    def asked(line: str, **more: str) -> list[str]:
        return candidates(place, line, **more)

    # After the source of a mount there are directories, and hosts only if one has been begun.
    assert asked(f"ocifs mount {host} ") == ["dir,"]
    assert asked(f"ocifs mount {host} ./m") == ["dir,./m"]
    # A namespace continues with a slash, a repository with a colon.
    assert asked(f"ocifs ls {host}/tab/") == [f"open,{host}/tab/app", f"open,{host}/tab/below/"]
    for command in ("ls", "cat", "tags", "cache pin", "mount", "find", "export", "doctor"):
        tags = asked(f"ocifs {command} {host}/tab/app:", **colon)
        assert tags == ["plain,1.0", "plain,2.0"], command
    assert asked(f"ocifs cat {host} tab/app:", **colon) == ["plain,1.0", "plain,2.0"]
    one = f"ocifs cat {host}/tab/app:1.0"
    assert f"open,{port}/tab/app:1.0/layers/" not in asked(f"{one}/", **colon)
    assert "open,1.0/layers/" in asked(f"{one}/", **colon)
    # Without an index in the cache, no layer is fetched for a candidate.
    assert asked(f"{one} rootfs/") == []
    environ = {**environment(place), "OCIFS_CONFIG": os.devnull}
    command = [sys.executable, "-m", "ocifs", "ls", f"{host}/tab/app:1.0/rootfs"]
    subprocess.run(command, env=environ, check=True, timeout=60, capture_output=True)
    assert asked(f"{one} rootfs/") == ["open,rootfs/etc/", "open,rootfs/opt/"]
    assert asked(f"{one} rootfs/etc/") == ["plain,rootfs/etc/app.conf"]
    assert asked(f"{one}/rootfs etc/") == ["plain,etc/app.conf"]
    assert asked(f"{one}/rootfs/e", **colon) == ["open,1.0/rootfs/etc/"]
    assert asked("ocifs help ta") == ["plain,tags"]


@pytest.mark.servers
def test_names_known_for_less_than_a_minute_need_no_registry_and_others_are_as_they_last_were(
    place: Path, pushed: Registry
) -> None:
    line = f"ocifs ls {pushed.host}/completion/app:"

    def asked() -> int:
        return pushed.log.read_text().count('"GET /v2/completion/app/tags/list')

    before = asked()
    assert len(candidates(place, line)) == 2
    assert len(candidates(place, line)) == 2
    assert asked() == before + 1
    shutil.rmtree(place / ".cache" / "ocifs" / "completion")
    assert len(candidates(place, line)) == 2
    assert asked() == before + 1
    shutil.rmtree(place / ".cache" / "ocifs" / "completion")
    for path in (place / ".cache" / "ocifs").rglob("names/*/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "at": 0}))
    assert len(candidates(place, line)) == 2
    assert asked() == before + 2


def test_a_registry_that_says_nothing_gives_no_candidates_and_no_words(place: Path) -> None:
    with silent_server() as host:
        assert candidates(place, f"ocifs ls {host}/") == []
    assert candidates(place, f"ocifs ls {host}/") == []  # nothing listens any more
    (place / "broken.toml").write_text("= no toml")
    assert candidates(place, "ocifs ls x", OCIFS_CONFIG=str(place / "broken.toml")) == []


def test_hosts_are_those_of_credentials_and_of_the_configuration(place: Path) -> None:
    (place / ".docker").mkdir()
    (place / ".docker" / "config.json").write_text(
        '{"auths": {"https://one.example.com/v1/": {"auth": "eDp5"}}}'
    )
    (place / "c.toml").write_text(
        "[mounts.work]\nsource = 'two.example.com/team'\nmountpoint = '/mnt/w'\n"
    )
    config = {"OCIFS_CONFIG": str(place / "c.toml")}
    assert {"open,one.example.com/", "open,two.example.com/"} <= set(
        candidates(place, "ocifs ls ", **config)
    )
    assert "plain,work" in candidates(place, "ocifs mount w", **config)
    assert candidates(place, "ocifs ls w", **config) == []


def test_layouts_are_found_on_disk(place: Path) -> None:
    (place / "deep" / "layout").mkdir(parents=True)
    (place / "deep" / "layout" / "oci-layout").touch()
    assert candidates(place, f"ocifs ls oci:{place}/de") == [f"open,oci:{place}/deep/"]
    assert candidates(place, f"ocifs ls oci:{place}/deep/", OCIFS_BREAKS=" :=") == [
        f"plain,{place}/deep/layout"
    ]


def test_archives_and_the_names_in_them_are_found_on_disk(place: Path) -> None:
    (place / "deep").mkdir(exist_ok=True)
    (place / "deep" / "app.tar").write_bytes(
        archive_of(saved([("a", ["app:1"]), ("b", ["app:2"])]))
    )
    for prefix in ("docker-archive:", "oci-archive:", ""):
        assert candidates(place, f"ocifs ls {prefix}{place}/deep/ap") == [
            f"plain,{prefix}{place}/deep/app.tar"
        ]
    assert candidates(place, f"ocifs ls oci:{place}/deep/ap") == []
    for prefix in ("docker-archive:", ""):
        names = [f"plain,{prefix}{place}/deep/app.tar:app:{number}" for number in (1, 2)]
        assert candidates(place, f"ocifs ls {prefix}{place}/deep/app.tar:") == names
