"""Cached completions: their keys, bounds and files, and the processes that replace them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ocifs.cli import completion_cache
from ocifs.cli.completion import stem
from ocifs.cli.completion_cache import CompletionCache
from ocifs.cli.completion_key import CompletionKeys
from tests.cli.test_start import unwanted
from tests.support.pushed import push_image
from tests.support.registry import Registry
from tests.support.silent import silent_server

KEY = "0" * 64
WORDS = [("h/a", "open"), ("h/b", "plain")]
NOT_FOR_AN_ANSWER = (
    "trio",
    "httpx",
    "httpcore",
    "ssl",
    "ocifs.app",
    "ocifs.tree",
    "ocifs.layers",
    "ocifs.store",
    "ocifs.fuse",
    "ocifs.settings",
    "ocifs.cli.ls",
    "ocifs.cli.completions",
    "rich",
)


@pytest.fixture
def cache(tmp_path: Path) -> CompletionCache:
    return CompletionCache(str(tmp_path / "completion"))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without files of this machine's user."""
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": "/usr/bin"}


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# Keys


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CHANGES: dict[str, Callable[[Path, dict[str, str]], object]] = {
    "containers auth.json": lambda home, _: write(home / ".config/containers/auth.json", "{}"),
    "runtime auth.json": lambda home, _: write(home / "run/containers/auth.json", "{}"),
    "docker config.json": lambda home, _: write(home / ".docker/config.json", "{}"),
    "dockercfg": lambda home, _: write(home / ".dockercfg", "{}"),
    "file of --authfile": lambda home, _: write(home / "auth", "new"),
    "configuration": lambda home, _: write(home / ".config/ocifs/config.toml", "timeout = 5"),
    "OCIFS_CONFIG": lambda _, environ: environ.update(OCIFS_CONFIG="/dev/null"),
    "OCIFS_AUTHFILE": lambda _, environ: environ.update(OCIFS_AUTHFILE="/x"),
    "OCIFS_USERNAME": lambda _, environ: environ.update(OCIFS_USERNAME="me"),
    "a variable of a helper": lambda _, environ: environ.update(AWS_PROFILE="work"),
    "a proxy": lambda _, environ: environ.update(HTTPS_PROXY="http://p"),
    "home": lambda home, environ: environ.update(HOME=str(home / "other")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_can_change_an_answer_changes_its_key(
    change: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    args = ["ls", "--authfile", str(tmp_path / "auth")]
    write(tmp_path / "auth", "old one")
    before = CompletionKeys(args, environ).key("h/")
    assert CompletionKeys(args, environ).key("h/") == before
    CHANGES[change](tmp_path, environ)
    assert CompletionKeys(args, environ).key("h/") != before


def test_files_that_a_variable_or_the_configuration_names_change_the_key(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    write(tmp_path / "named", "1")
    write(tmp_path / "config.toml", f"[mounts.x]\nauthfile = '{tmp_path}/named'\n")
    for more in (
        {"OCIFS_CONFIG": str(tmp_path / "config.toml")},
        {"OCIFS_AUTHFILE": str(tmp_path / "named")},
        {"OCIFS_PASSWORD_FILE": str(tmp_path / "named")},
    ):
        before = CompletionKeys(["ls"], {**environ, **more}).key("h/")
        (tmp_path / "named").write_text((tmp_path / "named").read_text() + "1")
        assert CompletionKeys(["ls"], {**environ, **more}).key("h/") != before


def test_words_and_the_directory_change_the_key(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        CompletionKeys(args, environ).key(word)
        for args in (["ls"], ["cat"], ["ls", "--plain-http"], ["cat", "h/a:1"])
        for word in ("", "h/", "h/a:")
    }
    assert len(keys) == 12
    before = CompletionKeys(["ls"], environ).key("h/")
    monkeypatch.chdir(tmp_path)
    assert CompletionKeys(["ls"], environ).key("h/") != before


def test_the_line_and_the_terminal_do_not_change_the_key(environ: dict[str, str]) -> None:
    more = {"COMP_WORDS": "ocifs ls h/a", "COLUMNS": "90", "SHLVL": "3", "OLDPWD": "/", "_": "x"}
    keys = [CompletionKeys(["ls"], each).key("h/") for each in (environ, {**environ, **more})]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("word", "expected"),
    [("", ""), ("ho", ""), ("h:50", "h:"), ("h/te", "h/"), ("h/t/a:1", "h/t/a:"), ("h/", "h/")],
)
def test_words_with_the_same_stem_share_an_answer(word: str, expected: str) -> None:
    assert stem(word) == expected


# Files


def test_an_answer_is_private_and_found_until_a_day_later(cache: CompletionCache) -> None:
    assert cache.find(KEY) is None
    assert cache.store(KEY, WORDS)
    path = Path(cache.directory, KEY)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert cache.find(KEY) == (WORDS, False)
    age(path, 120)
    assert cache.find(KEY) == (WORDS, True)
    for seconds in (2 * 86400, -3600):
        age(path, seconds)
        assert cache.find(KEY) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "null",
        "[1]",
        '[["a"]]',
        '[["a", "dir"]]',
        '[["a", []]]',
        '[[1, "open"]]',
        '[["a", "open"], 1]',
        '[["a", "open"]',
        "[" * 100_000,
        "\xff",
        json.dumps([["a" * (completion_cache.MAX_FILE_BYTES + 1), "open"]]),
    ],
    ids=range(13),
)
def test_a_malformed_file_is_not_an_answer(content: str, cache: CompletionCache) -> None:
    cache.store(KEY, WORDS)
    Path(cache.directory, KEY).write_bytes(content.encode("latin-1"))
    assert cache.find(KEY) is None


def to_link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


UNTRUSTED: dict[str, Callable[[Path], object]] = {
    "a writable file": lambda path: path.chmod(0o620),
    "a writable directory": lambda path: path.parent.chmod(0o777),
    "a link": to_link,
    "a FIFO": to_fifo,
    "a directory": to_directory,
}
if os.geteuid() == 0:
    UNTRUSTED["a file of another user"] = lambda path: os.chown(path, 65534, 65534)
    UNTRUSTED["a directory of another user"] = lambda path: os.chown(path.parent, 65534, 65534)


@pytest.mark.parametrize("change", UNTRUSTED)
def test_a_file_that_others_could_have_written_is_not_an_answer(
    change: str, cache: CompletionCache
) -> None:
    cache.store(KEY, WORDS)
    UNTRUSTED[change](Path(cache.directory, KEY))
    assert cache.find(KEY) is None
    assert cache.lock_outdated(KEY) is None


def test_files_and_bytes_are_bounded(
    cache: CompletionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion_cache, "MAX_FILES", 5)
    for number in range(9):
        assert cache.store(f"{number:064}", WORDS)
        age(Path(cache.directory, f"{number:064}"), 100 - number)
    assert len(os.listdir(cache.directory)) == 5
    assert cache.find(f"{8:064}") is not None
    monkeypatch.setattr(completion_cache, "MAX_BYTES", 2000)
    for number in range(4):
        cache.store(f"{number:064}", [("x" * 900, "plain")])
    assert sum(path.stat().st_size for path in Path(cache.directory).iterdir()) <= 2000
    assert not cache.store(KEY, [("x" * completion_cache.MAX_FILE_BYTES, "plain")])


def test_leftovers_and_old_files_are_removed(cache: CompletionCache) -> None:
    cache.store(KEY, WORDS)
    for name, seconds in ((".tmp-1", 120), (".tmp-2", 1), ("1" * 64, 100_000), ("2" * 64, 100)):
        Path(cache.directory, name).write_text("[]")
        age(Path(cache.directory, name), seconds)
    cache.store(KEY, WORDS)
    assert sorted(os.listdir(cache.directory)) == [".tmp-2", KEY, "2" * 64]
    assert cache.clear() == 3
    assert os.listdir(cache.directory) == []


def test_one_process_at_a_time_refreshes_an_answer(cache: CompletionCache) -> None:
    cache.store(KEY, WORDS)
    assert cache.lock_outdated(KEY) is None
    age(Path(cache.directory, KEY), 120)
    first = cache.lock_outdated(KEY)
    assert first is not None
    assert cache.lock_outdated(KEY) is None
    os.close(first)
    second = cache.lock_outdated(KEY)
    assert second is not None
    os.close(second)


def test_a_directory_that_cannot_be_written_stores_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CompletionCache(str(tmp_path / "file" / "completion"))
    assert not cache.store(KEY, WORDS)
    assert (cache.find(KEY), cache.clear()) == (None, 0)


# Whole completions


class Completion:
    """Completes lines as bash does, with a home directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = home / ".cache" / "ocifs" / "completion"

    def environ(self, line: str) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "OCIFS_BREAKS": ":",
            "OCIFS_CONFIG": os.devnull,
            "_OCIFS_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
        }

    def start(self, line: str, program: tuple[str, ...] = ("-m", "ocifs")) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *program],
            env=self.environ(line),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def words(self, line: str) -> list[str]:
        with self.start(line) as process:
            shown, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            return shown.split()

    def age(self, seconds: float = 120) -> None:
        for path in self.directory.iterdir():
            age(path, seconds)

    def forget_names(self) -> None:
        """Make the names outdated that the registry has sent."""
        for path in (self.home / ".cache" / "ocifs").rglob("names/*/*.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "at": 0}))


@pytest.fixture
def completion(tmp_path: Path) -> Completion:
    return Completion(tmp_path)


# Prints the imported modules in place of ending.
PROGRAM = """
import json, os, sys
def leave(status):
    print(json.dumps(sorted(sys.modules)))
    sys.stdout.flush()
    end(status)
end, os._exit = os._exit, leave
from ocifs.__main__ import main
main()
"""


@pytest.mark.servers
def test_a_cached_answer_imports_nothing_of_trees_and_needs_no_registry(
    completion: Completion, registry: Registry
) -> None:
    push_image(registry.url, "tabs/app:1.0", {"x": b"x"})
    push_image(registry.url, "tabs/apple:1.0", {"x": b"x"})
    host = registry.host
    lines = {
        "ocifs ls --tag-t": "ocifs ls --tag-t",
        f"ocifs ls {host}/tabs/": f"ocifs ls {host}/tabs/appl",
        f"ocifs ls {host}/tabs/app:": f"ocifs ls {host}/tabs/app:1",
        f"ocifs cat {host}/tabs/app:1.0 layers/": f"ocifs cat {host}/tabs/app:1.0 layers/0",
        f"ocifs ls {host}/tabs/app": f"ocifs ls {host}/tabs/app",
    }
    shown = {line: completion.words(line) for line in lines}
    assert all(shown.values())
    assert "open,apple" not in shown[f"ocifs ls {host}/tabs/app:"]
    requests = registry.log.read_text().count('"GET /v2/')
    for line in lines.values():
        with completion.start(line, ("-c", PROGRAM)) as process:
            words, modules = process.communicate(timeout=60)[0].rstrip().rsplit("\n", 1)
        assert unwanted(set(json.loads(modules)), NOT_FOR_AN_ANSWER) == [], line
        assert words.split(), line
    assert registry.log.read_text().count('"GET /v2/') == requests
    # A complete name has an answer of its own, with its tags.
    assert any(word.endswith("app:1.0") for word in shown[f"ocifs ls {host}/tabs/app"])


@pytest.mark.servers
def test_an_outdated_answer_is_shown_and_replaced(
    completion: Completion, registry: Registry
) -> None:
    line = f"ocifs ls {registry.host}/refreshed/app:"
    push_image(registry.url, "refreshed/app:1", {"x": b"x"})
    assert completion.words(line) == ["plain,1"]
    push_image(registry.url, "refreshed/app:2", {"x": b"x"})
    assert completion.words(line) == ["plain,1"]
    completion.age()
    completion.forget_names()
    process = completion.start(line)
    # The pipe ends with the answer, though another process continues.
    assert process.communicate(timeout=60)[0].split() == ["plain,1"]
    # Ctrl-C of the terminal does not reach that process.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + 60
    while completion.words(line) != ["plain,1", "plain,2"]:
        assert time.monotonic() < deadline
    assert not list(completion.directory.glob(".tmp-*"))


@pytest.mark.servers
def test_an_answer_is_not_shown_with_other_credentials(
    completion: Completion, registry: Registry
) -> None:
    line = f"ocifs ls {registry.host}/private/app:"
    push_image(registry.url, "private/app:1", {"x": b"x"})
    assert completion.words(line) == ["plain,1"]
    requests = registry.log.read_text().count('"GET /v2/')
    write(completion.home / ".docker" / "config.json", '{"auths": {"h": {"auth": "eDp5"}}}')
    completion.forget_names()
    assert completion.words(line) == ["plain,1"]
    assert registry.log.read_text().count('"GET /v2/') > requests


def test_a_registry_that_fails_stores_nothing(completion: Completion) -> None:
    with silent_server() as host:
        assert completion.words(f"ocifs ls {host}/") == []
    assert not completion.directory.exists()


def test_an_interrupt_ends_a_completion_without_an_answer(completion: Completion) -> None:
    # The interrupt arrives while the candidates are requested.
    program = """
import os, signal
import ocifs.cli.completions as completions
def collected(*_):
    os.killpg(0, signal.SIGINT)
    return True
completions._collected_in_time = collected
from ocifs.__main__ import main
main()
"""
    with completion.start("ocifs ls 127.0.0.1:1/", ("-c", program)) as process:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == -signal.SIGINT
    assert not completion.directory.exists()


def test_clearing_the_cache_removes_the_answers(completion: Completion) -> None:
    assert completion.words("ocifs ls --tag-t") == ["plain,--tag-ttl"]
    assert len(os.listdir(completion.directory)) == 1
    environ = {**completion.environ(""), "_OCIFS_COMPLETE": ""}
    command = [sys.executable, "-m", "ocifs", "cache", "clear"]
    subprocess.run(command, env=environ, check=True, timeout=60, capture_output=True)
    assert os.listdir(completion.directory) == []
