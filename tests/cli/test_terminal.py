"""Output for a terminal, but not for a pipe: colours, progress bars and redrawn screens."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture, for all tests here)
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

pytestmark = pytest.mark.servers
ESCAPE = re.compile(rb"\x1b\[([0-9;?]*)([A-Za-z])")
PATIENCE = 60
WISHES: dict[str, dict[str, str]] = {
    "terminal": {"TERM": "xterm"},
    "NO_COLOR": {"TERM": "xterm", "NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
}


def on_terminal(words: list[str], more: Mapping[str, str], cache: Path) -> bytes:
    """The output of a command on a terminal, on standard output and standard error."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "CLICOLOR_FORCE")
    }
    environment |= {"XDG_CACHE_HOME": str(cache), **more}
    program, seen = [sys.executable, "-m", "ocifs", *words], b""
    child, file = pty.fork()
    if not child:
        os.execve(program[0], program, environment)
    try:
        while select.select([file], [], [], PATIENCE)[0]:
            seen += os.read(file, 1 << 16)
        raise AssertionError(f"nothing came for {PATIENCE} s: {seen!r}")
    except OSError:  # EIO: the other end is closed
        return seen
    finally:
        os.close(file)  # ends processes that are still running
        os.waitpid(child, 0)


def in_pipe(words: list[str], cache: Path, **more: str) -> bytes:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "CLICOLOR_FORCE")
    }
    done = subprocess.run(
        [sys.executable, "-m", "ocifs", *words],
        env={**environment, "XDG_CACHE_HOME": str(cache), "TERM": "xterm", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return done.stdout


def colours(written: bytes) -> set[bytes]:
    return {
        codes
        for codes, letter in ESCAPE.findall(written)
        if letter == b"m" and codes not in (b"", b"0")
    }


@pytest.fixture(scope="module")
def source(registry: Registry) -> str:
    content = bytes(range(256)) * 1024
    empty, layer = (push_blob(registry.url, "shown/app", each) for each in (b"{}", content))
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/x.shown",
        "config": {"mediaType": mediatype.OCI_EMPTY, "digest": empty, "size": 2},
        "layers": [
            {"mediaType": "application/octet-stream", "digest": layer, "size": len(content)}
        ],
    }
    push_manifest(registry.url, "shown/app", manifest, "1")
    return f"{registry.host}/shown/app"


@pytest.mark.parametrize("wish", WISHES)
def test_work_that_takes_long_shows_a_bar_on_a_screen(
    wish: str, source: str, tmp_path: Path
) -> None:
    seen = {
        name: on_terminal(words, WISHES[wish], tmp_path)
        for name, words in (("prefetch", ["prefetch", f"{source}:1"]), ("find", ["find", source]))
    }
    # The progress bar on the same terminal does not overwrite a result.
    assert b":1\r\n" in seen["find"]
    for name, (start, end) in {
        "prefetch": (b"256.0 KiB", b"100%"),
        "find": (b"tags", b"1/1"),
    }.items():
        bar = start in seen[name] and end in seen[name]
        assert bar == (wish != "dumb"), seen[name]
        assert not colours(seen[name])
        assert wish != "dumb" or not ESCAPE.search(seen[name])


def test_exports_and_checks_of_the_cache_show_how_far_they_are(source: str, tmp_path: Path) -> None:
    screen = WISHES["terminal"]
    written = on_terminal(["export", f"{source}:1", f"oci:{tmp_path}/layout"], screen, tmp_path)
    checked = on_terminal(["cache", "verify"], screen, tmp_path)
    assert b"KiB  [" in written and b"100%" in written
    assert b"KiB  [" in checked and b"100%" in checked


def test_a_pipe_gets_results_alone(source: str, tmp_path: Path) -> None:
    assert in_pipe(["prefetch", f"{source}:1"], tmp_path) == b""
    assert in_pipe(["find", source], tmp_path) == b"artifact\t:1\n"
    assert in_pipe(["ls", source, "_tags"], tmp_path) == b"1\n"
    assert b"\x1b" not in in_pipe(["doctor", source], tmp_path)
    assert in_pipe(["cache", "verify"], tmp_path).count(b"\n") == 1


@pytest.mark.parametrize("wish", WISHES)
def test_findings_of_doctor_and_errors_have_colours_where_they_are_wanted(
    wish: str, source: str, tmp_path: Path
) -> None:
    wanted = wish == "terminal"
    assert bool(colours(on_terminal(["doctor", source], WISHES[wish], tmp_path))) == wanted
    assert bool(colours(on_terminal(["ls", "127.0.0.1:1"], WISHES[wish], tmp_path))) == wanted
    assert bool(colours(on_terminal(["lss"], WISHES[wish], tmp_path))) == wanted
    assert colours(on_terminal(["ls", source], WISHES[wish], tmp_path)) == set()
    assert bool(
        colours(in_pipe(["doctor", source], tmp_path, CLICOLOR_FORCE="1", **WISHES[wish]))
    ) == (wish != "NO_COLOR")


@pytest.mark.mount
def test_the_state_of_a_mount_has_a_colour_and_says_the_same_without(
    registry: Registry, tmp_path: Path
) -> None:
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
        shown = {wish: on_terminal(["status"], more, tmp_path) for wish, more in WISHES.items()}
        piped = in_pipe(["status"], tmp_path)
    assert (
        colours(shown["terminal"])
        and not colours(shown["NO_COLOR"])
        and not ESCAPE.search(shown["dumb"])
    )
    for written in (*shown.values(), piped):
        assert f"{tmp_path}/mnt  {registry.host}  answers".encode() in ESCAPE.sub(b"", written)
    assert b"\x1b" not in piped
