"""No entry point runs code from the current directory.

Every entry point, in a directory full of modules and programs that leave a mark when they run.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import ocifs
from ocifs.cli.completion import script
from ocifs.programs import absolute_entries, exclude_current_directory, find_program
from scripts.example import make
from tests.cli.test_completion import COMMANDS, shell

BIN = Path(sys.executable).parent
PACKAGES = ("ocifs", "trio", "click", "httpx", "pyfuse3", "cachetools", "isal", "h11", "encodings")
MODULES = (
    "sitecustomize",
    "usercustomize",
    "argparse",
    "difflib",
    "json",
    "re",
    "tomllib",
    "subprocess",
    "startup",
)
PROGRAMS = (
    "python",
    "python3",
    "fusermount3",
    "fusermount",
    "umount",
    "mount",
    "docker-credential-case",
)
LATE = (
    "trio",
    "httpx",
    "pyfuse3",
    "cachetools",
    "isal",
    "h11",
    "tomllib",
)  # imported by the command, not by the interpreter


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The directory of another user."""
    place = tmp_path / "stranger"
    place.mkdir()
    poison(place, (*PACKAGES, *MODULES))
    for name in PROGRAMS:
        program = place / name
        program.write_text(f'#!/bin/sh\necho "the program {name}" >>{tmp_path}/ran\nexit 1\n')
        program.chmod(0o755)
    make(tmp_path / "example")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "home").mkdir()
    return place


def poison(place: Path, names: tuple[str, ...]) -> None:
    """Write modules and runnable packages that leave a mark in the parent directory."""
    for name in names:
        code = f"open({str(place.parent / 'ran')!r}, 'a').write('the module {name}\\n')\n"
        if name in PACKAGES:
            (place / name).mkdir()
            (place / name / "__init__.py").write_text(code)
            (place / name / "__main__.py").write_text(code)
        else:
            (place / f"{name}.py").write_text(code)


def ran(place: Path) -> str:
    path = place.parent / "ran"
    return path.read_text() if path.exists() else ""


def start(
    place: Path, *command: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in that directory, without the variables of the tests' interpreter."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {"HOME": str(place.parent / "home"), "XDG_CACHE_HOME": str(place.parent / "cache")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=place,
        env={**kept, **own, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )


USUAL = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENTS = {
    "plain": {},
    "PATH begins with nothing": {"PATH": f":{USUAL}"},
    "PATH begins with a dot": {"PATH": f".:./bin:{USUAL}"},
    "PATH is empty": {"PATH": ""},
    "PYTHONSTARTUP": {"PYTHONSTARTUP": "startup.py", "PYTHONINSPECT": ""},
    "user site": {"PYTHONUSERBASE": ".", "PYTHONNOUSERSITE": ""},
}


@pytest.mark.mount
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_no_entry_point_runs_code_of_the_current_directory(
    stranger: Path, environment: dict[str, str]
) -> None:
    mnt, layout = stranger.parent / "mnt", f"oci:{stranger.parent}/example"
    for words in (
        (BIN / "mount.ocifs", layout, mnt, "-o", "ro,_netdev"),
        (BIN / "ocifs", "status", mnt),
        (BIN / "ocifs", "doctor"),
        (BIN / "ocifs", "umount", mnt),
        (BIN / "ocifs", "mount", layout, mnt),
        (BIN / "ocifs", "umount", mnt),
        (BIN / "ocifs", "ls", layout),
        (BIN / "ocifs", "cache", "list"),
    ):
        done = start(stranger, *words, environment=environment)
        assert ran(stranger) == "", words
        assert done.returncode == 0 or "doctor" in words, (words, done.stderr)


@pytest.mark.parametrize("path", [":", ".", "", "./:{place}", "../stranger"])
@pytest.mark.parametrize("command", ["ocifs ls", "mount.ocifs"])
def test_relative_entries_of_the_module_path_are_left_out(
    tmp_path: Path, path: str, command: str
) -> None:
    place = tmp_path / "stranger"
    place.mkdir()
    poison(place, LATE)
    make(tmp_path / "example")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "empty").mkdir()
    environment = {"PYTHONPATH": path.format(place=tmp_path / "empty")}
    program, *words = command.split()
    arguments = [
        f"oci:{tmp_path}/example",
        *([str(tmp_path / "mnt")] if program == "mount.ocifs" else []),
    ]
    done = start(place, BIN / program, *words, *arguments, environment=environment)
    start(place, BIN / "ocifs", "umount", tmp_path / "mnt")
    assert (done.returncode, ran(place)) == (0, ""), done.stderr


def test_the_answer_to_a_shell_runs_no_code_of_the_current_directory(stranger: Path) -> None:
    for name in ("bash", "zsh", "fish"):
        asked = {
            "_OCIFS_COMPLETE": f"{name}_complete",
            "COMP_WORDS": "ocifs ls loc",
            "COMP_CWORD": "2",
        }
        start(stranger, BIN / "ocifs", environment=asked)
    assert ran(stranger) == ""


KEY = {
    "bash": (
        'source {script}; COMP_LINE="{word} stat" COMP_POINT=${{#COMP_LINE}}; '
        "_ocifs_completion {word} stat {word}; "
        'echo "${{COMPREPLY[@]}}"'
    ),
    "zsh": (
        "compdef() {{ :; }}; source {script}; words=({word} stat) CURRENT=2; "
        "compadd() {{ echo $plain $more; }}; "
        "_ocifs_completion"
    ),
    "fish": "source {script}; complete -C '{word} stat'",
}


@pytest.mark.parametrize("path", [":{bin}:{usual}", ".:{bin}:{usual}", "{bin}:{usual}"])
@pytest.mark.parametrize("word", ["ocifs", "./ocifs"])
@pytest.mark.parametrize("name", KEY)
def test_the_key_runs_the_installed_program(
    stranger: Path, name: str, word: str, path: str
) -> None:
    shutil.rmtree(stranger / "ocifs")
    (stranger / "ocifs").write_text(
        f"#!/bin/sh\necho the program of the directory >>{stranger.parent}/ran\n"
    )
    (stranger / "ocifs").chmod(0o755)
    (stranger.parent / "script").write_text(script(name))
    options = [option for option in COMMANDS.get(name, ["-N"]) if option != "-i"]
    line = KEY[name].format(script=stranger.parent / "script", word=word)
    environment = {"PATH": path.format(bin=BIN, usual=USUAL)}
    done = start(stranger, shell(name), *options, "-c", line, environment=environment)
    assert ran(stranger) == ""
    if path.startswith("{bin}") and word == "ocifs":
        assert "status" in done.stdout, done.stderr


def test_a_program_is_found_at_absolute_places_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "true"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in ("", ":", ".", f"bin:{tmp_path.name}"):
        assert find_program("true", {"PATH": path}) in ("/bin/true", "/usr/bin/true")
    assert find_program("true", {"PATH": f":{tmp_path}"}) == str(program)
    assert find_program("./true", {"PATH": str(tmp_path)}) is None
    assert find_program("no-such-program") is None
    assert absolute_entries(":a:/b::./c:/d") == ["/b", "/d"]


def test_what_is_left_of_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    environment = {"PATH": ":", "PYTHONPATH": "/a::b", "HOME": "."}
    exclude_current_directory(environment)
    assert environment == {"PYTHONPATH": "/a", "HOME": "."}


def test_no_program_is_started_by_its_bare_name() -> None:
    started = []
    for path in Path(ocifs.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
                name = node.elts[0].value
                if isinstance(name, str) and find_program(name):
                    started.append(f"{path.name}:{node.lineno} {name}")
    assert started == []
