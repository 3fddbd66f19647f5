"""Foreign text on a terminal: every command shows it, escaped."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocifs
from ocifs.cli.completion import SHELLS
from ocifs.fuse.holders import Holder
from ocifs.fuse.stats import Stats
from ocifs.oci.digest import Digest
from ocifs.printable import printable, printable_lines
from ocifs.telemetry import JournalFormatter, TextFormatter
from tests.cli.test_terminal import in_pipe, on_terminal
from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture, for all tests here)
from tests.support import starter
from tests.support.mount import mounted

HOSTILE = "x\x1b]0;PWNED\x07\x1b[2J\u009b31m\u202egnp\u2066\u200f\x7f\r"
MARKS = [
    each.encode()
    for each in (
        "\x1b]0",
        "\x1b[2J",
        "\x07",
        "\u009b",
        "\u202e",
        "\u2066",
        "\u200f",
        "\x7f",
        "gnp\r\r",
    )
]
TEXT = st.text(st.characters(), max_size=40)


@given(TEXT)
def test_what_is_shown_is_printable_and_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    assert printable(shown) == shown
    assert printable_lines(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("naïve 名前 🙂", "naïve 名前 🙂"),
        ("a\x1b[2J\nb\tc\r", "a\\x1b[2J\\nb\\tc\\r"),
        ("\u009b31m\u202e", "\\x9b31m\\u202e"),
        ("\udcff\ud800\U000e0041", "\\xff\\ud800\\U000e0041"),
    ],
)
def test_what_is_not_printable_is_its_escape(raw: str, shown: str) -> None:
    assert printable(raw) == shown


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout with hostile text in every place that a publisher controls."""
    blobs = tmp_path / "layout/blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str = "a/b") -> dict[str, object]:
        digest = Digest.of(data)
        (blobs / digest.encoded).write_bytes(data)
        return {"mediaType": media_type, "digest": str(digest), "size": len(data)}

    kind = "application/vnd.oci.image.manifest.v1+json"
    notes = {HOSTILE: HOSTILE, "org.opencontainers.image.title": HOSTILE}
    title = {"org.opencontainers.image.title": f"{HOSTILE}.txt"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "artifactType": "x/y",
        "config": put(b"{}"),
        "layers": [{**put(b"data"), "annotations": title}],
        "annotations": notes,
    }
    entries = [
        {
            **put(json.dumps({**manifest, "artifactType": f"x/y{number}"}).encode(), kind),
            "annotations": {"org.opencontainers.image.ref.name": f"{HOSTILE}{number}"},
        }
        for number in range(2)
    ]
    (tmp_path / "layout/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "layout/index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": entries})
    )
    return tmp_path / "layout"


def manifest_of(layout: Path) -> str:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    return f"_manifests/{entries[0]['digest']}"


WORDS = (
    "ls {source} _tags",
    "ls -l {source} _tags",
    "ls {source} {manifest}/annotations",
    "ls -l {source} {manifest}/files",
    "tree {source} {manifest}",
    "tree {source}",
    "find {source}",
    "find {source} {source}",
    "cat {source} _tags/none",
    "cat {source} {manifest}/annotations/none",
    "cat {source} {hostile}",
    "ls {source} {hostile}",
    "tree {source} {hostile}",
    "inspect {source}@{digest}",
    "inspect --json {source}@{digest}",
    "inspect {source}:{hostile}",
    "prefetch {source} {hostile}",
    "export {source} {hostile}",
    "export {source} oci:{place}/{hostile}/x",
    "doctor {source}",
    "doctor {hostile}",
    "status {hostile}",
    "umount {hostile}",
    "config show {hostile}",
    "cache pin {hostile}",
    "cache unpin {hostile}",
    "cache path {hostile}",
    "mount {source} {place}/absent/{hostile}",
    "mount {hostile}",
    "ls {hostile}",
    "{hostile}",
    "ls --{hostile}",
    "ls --timeout {hostile} {source}",
)


def arguments(words: str, layout: Path) -> list[str]:
    manifest = manifest_of(layout)
    known = {
        "source": f"oci:{layout}",
        "manifest": manifest,
        "digest": manifest.partition("/")[2],
        "hostile": HOSTILE,
    }
    known["place"] = str(layout.parent)
    return [word.format(**known) for word in words.split()]


@pytest.mark.parametrize("words", WORDS)
def test_on_a_terminal_it_does_nothing(layout: Path, tmp_path: Path, words: str) -> None:
    for more in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "xterm"}):
        seen = on_terminal(arguments(words, layout), more, tmp_path)
        assert seen
        assert [mark for mark in MARKS if mark in seen] == []


@pytest.mark.parametrize("words", WORDS)
def test_standard_error_is_clean_wherever_it_leads(
    layout: Path, tmp_path: Path, words: str
) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = starter.run(arguments(words, layout), environment)
    assert [mark for mark in MARKS if mark in done.stderr] == []


def test_a_pipe_has_the_names_as_they_are(layout: Path, tmp_path: Path) -> None:
    source, manifest = f"oci:{layout}", manifest_of(layout)
    name = f"{HOSTILE}.txt".encode()
    assert name in in_pipe(["ls", source, f"{manifest}/files"], tmp_path)
    assert name in in_pipe(["ls", "-l", source, f"{manifest}/files"], tmp_path)
    assert name in in_pipe(["tree", source, f"{manifest}/files"], tmp_path)
    assert f":{HOSTILE}0".encode() in in_pipe(["find", source], tmp_path)
    # With forced colours, a pipe is read by a person: `… | less -R`.
    assert name not in in_pipe(["ls", source, f"{manifest}/files"], tmp_path, CLICOLOR_FORCE="1")


@pytest.mark.mount
def test_the_files_for_a_person_are_clean(layout: Path, tmp_path: Path) -> None:
    with mounted(f"oci:{layout}", tmp_path / "mnt", tmp_path / "cache") as mount:
        shown = (mount.path / manifest_of(layout) / "summary.txt").read_bytes()
    assert b"PWNED" in shown
    assert [mark for mark in MARKS if mark in shown] == []
    stats = Stats()
    stats.record_error("read", "EIO", HOSTILE, HOSTILE)
    stats.record_note(f"{HOSTILE}\nand a line")
    assert [mark for mark in MARKS if mark in stats.report()] == []
    assert stats.report().count(b"\n") == 2


@pytest.mark.parametrize("formatter", [TextFormatter(), JournalFormatter()])
def test_a_log_line_is_one_line(formatter: logging.Formatter) -> None:
    error = ValueError(f"{HOSTILE}\n<0>forged")
    members = {
        "msg": "%s\n<0>forged",
        "args": (HOSTILE,),
        "levelno": logging.ERROR,
        "levelname": "ERROR",
    }
    record = logging.makeLogRecord({**members, "exc_info": (ValueError, error, None)})
    text = formatter.format(record)
    assert [mark for mark in MARKS if mark in text.encode()] == []
    assert text.split("\n")[0].endswith("\\n<0>forged")


def test_a_shell_is_offered_no_such_name(layout: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / HOSTILE.replace("/", "")).mkdir()
    for shell in SHELLS:
        line = f"ocifs ls oci:{tmp_path}/"
        done = subprocess.run(
            [sys.executable, "-m", "ocifs"],
            env={
                "_OCIFS_COMPLETE": f"{shell}_complete",
                "COMP_WORDS": line,
                "COMP_CWORD": line.rsplit(maxsplit=1)[-1] if shell == "fish" else "2",
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
            },
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert b"plain" in done.stdout
        assert [mark for mark in MARKS if mark in done.stdout] == []


def calls() -> Iterator[str]:
    """The places at which a command writes without the functions that escape text."""
    for path in sorted((Path(ocifs.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "click.echo",
                "click.secho",
            ):
                yield f"{path.name}: {ast.unparse(node)[:60]}"


def test_every_command_writes_by_the_functions_that_clean() -> None:
    assert [each for each in calls() if not each.startswith("terminal.py")] == [
        "completion.py: click.echo(script(shell), nl=False)"
    ]


def test_a_process_that_holds_a_mount_is_shown_by_a_command_that_is_cleaned() -> None:
    assert printable(str(Holder(1, HOSTILE, "stands in it"))).isprintable()
