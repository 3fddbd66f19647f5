"""Output for a terminal, but not for a pipe: colours, progress and redrawn screens."""

from __future__ import annotations

import os
import pty
import re
import select
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture, for all tests here)
from tests.support import starter
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

pytestmark = pytest.mark.servers
ESCAPE = re.compile(rb"\x1b\[([0-9;?]*)([A-Za-z])")
PATIENCE = 60
# The terminal on standard input becomes the controlling terminal, as after a login.
OWN_SESSION = "import os, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
ONE_PIPE = "import os; os.dup2(1, 2)"  # standard error and output
# The last lines of commands that take long.
SUMMARIES = {
    "prefetch": rb"256\.0 KiB in [0-9.]+ s \([0-9.]+ .iB/s\), 1 layer",
    "find": rb"1 tag in [0-9.]+ s",
    "export": rb"256\.0 KiB in [0-9.]+ s \([0-9.]+ .iB/s\), 2 blobs",
}
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
    file, terminal = pty.openpty()
    process = starter.start(words, environment, (terminal, terminal, terminal), OWN_SESSION)
    os.close(terminal)
    seen = b""
    try:
        while select.select([file], [], [], PATIENCE)[0]:
            seen += os.read(file, 1 << 16)
        raise AssertionError(f"nothing came for {PATIENCE} s: {seen!r}")
    except OSError:  # EIO: the other end is closed
        return seen
    finally:
        os.close(file)  # ends processes that are still running
        process.wait(PATIENCE)


def in_pipe(words: list[str], cache: Path, **more: str) -> bytes:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "CLICOLOR_FORCE")
    }
    environment |= {"XDG_CACHE_HOME": str(cache), "TERM": "xterm", **more}
    return starter.run(words, environment, before=ONE_PIPE).stdout


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
def test_long_work_shows_one_line_on_a_screen(wish: str, source: str, tmp_path: Path) -> None:
    commands = {
        "prefetch": ["prefetch", f"{source}:1"],
        "find": ["find", source],
        "export": ["export", f"{source}:1", f"oci:{tmp_path}/layout"],
    }
    for name, words in commands.items():
        seen = on_terminal(words, WISHES[wish], tmp_path)
        # The first line, before anything is known.
        line = f"reading {words[1]}".encode()
        assert (line in seen) == (wish != "dumb"), seen
        assert not colours(seen)
        assert wish != "dumb" or not ESCAPE.search(seen)
        # The redrawn line is removed, and the summary is written once.
        assert re.search(rb"(?m)^" + SUMMARIES[name] + rb"\r$", last_screen(seen)), seen
        assert line not in last_screen(seen)
        # A result is not overwritten by the line on the same terminal.
        assert name != "find" or b":1\r\n" in seen


def last_screen(seen: bytes) -> bytes:
    """What stays on the terminal: in each line, the part after the last removal."""
    return b"\n".join(line.rpartition(b"\r\x1b[K")[2] for line in seen.split(b"\n"))


def test_a_check_of_the_cache_shows_its_progress(source: str, tmp_path: Path) -> None:
    on_terminal(["prefetch", f"{source}:1"], {}, tmp_path)
    checked = on_terminal(["cache", "verify"], WISHES["terminal"], tmp_path)
    assert b" KiB of " in checked and b"100%" in checked
    assert b"100%" not in last_screen(checked)


def test_a_pipe_gets_results_and_one_line_of_long_work(source: str, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path}/layout"
    prefetched = in_pipe(["prefetch", f"{source}:1"], tmp_path)
    assert re.fullmatch(SUMMARIES["prefetch"] + rb"\n", prefetched)
    found = in_pipe(["find", source], tmp_path)
    line = re.escape(f"artifact\t{source}:1\n".encode())
    assert re.fullmatch(line + SUMMARIES["find"] + rb"\n", found)
    exported = in_pipe(["export", f"{source}:1", layout], tmp_path)
    assert re.fullmatch(SUMMARIES["export"] + rb"\nsha256:[0-9a-f]{64}\n", exported)
    again = in_pipe(["export", f"{source}:1", layout], tmp_path)
    assert b"2 blobs; 256.0 KiB already present\n" in again
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
        assert f"{tmp_path}/mnt  {registry.host}  mounted".encode() in ESCAPE.sub(b"", written)
    assert b"\x1b" not in piped
