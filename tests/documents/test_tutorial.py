"""The commands of the tutorial run unchanged, and print the documented output."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.documents.session import Step, blocks, plain, run, steps

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
pytestmark = [pytest.mark.mount, pytest.mark.servers]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home directory in which the tutorial runs."""
    return tmp_path_factory.mktemp("tutorial")


@pytest.fixture(scope="module")
def sessions(home: Path) -> list[tuple[Step, str]]:
    """Every step of the tutorial, with its output."""
    found = [
        step for block in blocks((ROOT / "docs/tutorial.md").read_text()) for step in steps(block)
    ]
    # The first block sets up the clone, which is already done, and expects it as the current
    # directory.
    setting_up = "./scripts/setup\nsudo apt-get install --yes docker-registry skopeo\n"
    assert found[0].command.startswith(setting_up)
    first = found[0].command.replace(setting_up, f"cd {ROOT}\n")
    environment = {**os.environ, "TMPDIR": str(home), "LC_ALL": "C.UTF-8", "HOME": str(home)}
    # A user types the next command later than a script does, so the script waits for the server.
    wait = (
        "\nfor _ in $(seq 100); do curl -s 127.0.0.1:$port/v2/ && break; sleep 0.1; done"
        "; echo port $port"
    )
    serve = next(
        number for number, step in enumerate(found) if "docker-registry serve" in step.command
    )
    found[0] = Step(first, None)
    found[serve] = Step(found[serve].command + wait, None)
    return run(found, home, environment)


def test_the_tutorial_prints_the_documented_output(
    sessions: list[tuple[Step, str]], home: Path
) -> None:
    port = next(text for _, text in sessions if "port " in text).rpartition("port ")[2].strip()
    shown = 0
    for step, printed in sessions:
        if step.command == "ocifs status":
            assert f"{home}/" not in printed
            continue  # other mounts of this machine may be listed
        if step.output is not None:
            assert plain(printed, port) == plain(step.output), step.command
            shown += 1
    assert shown > 10


def test_the_readme_s_other_commands_are_those_that_ci_runs() -> None:
    other = [
        line
        for block in blocks(README)
        if not block.startswith("$ ")
        for line in block.splitlines()
    ]
    assert other
    for line in other:
        assert line.split()[0].removeprefix("./") in (ROOT / ".ci/run").read_text(), line


def test_the_page_about_the_scripts_names_every_script() -> None:
    page = (ROOT / "scripts/README.md").read_text()
    listed = subprocess.run(
        ["git", "ls-files", "-s", "scripts"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    programs = [
        line.split()[-1] for line in listed.stdout.splitlines() if line.startswith("100755")
    ]
    assert "scripts/demo" in programs
    assert [name for name in programs if f"| `{name}" not in page] == []
