"""The session in the README and in its picture is what the recorded commands print."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import pytest

from scripts.draw import PICTURES
from scripts.recording import Recorded, new_recording
from tests.documents.session import Step, blocks, steps
from tests.support.debian import debian_image

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.mount, pytest.mark.servers]


@pytest.fixture(scope="module")
def recorded() -> list[Recorded]:
    """A new recording, in a network namespace of its own."""
    if os.getuid():
        pytest.skip("a network namespace with a public name needs root")
    debian_image()  # skips if it cannot be built
    return new_recording()


def timeless(text: str) -> str:
    """The text without the seconds of a run."""
    return re.sub(r" in [0-9.]+ s$", " in N s", text, flags=re.MULTILINE)


def test_the_readme_shows_what_the_session_prints(recorded: list[Recorded]) -> None:
    printed = {step["command"]: step["output"].rstrip("\n") for step in recorded}
    text = (ROOT / "README.md").read_text()
    shown: list[Step] = [
        step for block in blocks(text) if block.startswith("$ ") for step in steps(block)
    ]
    assert len(shown) > 2
    assert {step.command: step.output for step in shown}.items() <= printed.items()


def test_the_picture_shows_what_the_session_prints(recorded: list[Recorded]) -> None:
    drawn = html.unescape(re.sub(r"<[^>]+>", "", (PICTURES / "session.svg").read_text()))
    drawn = timeless(drawn.replace("\u00a0", " "))
    shown = [line.rstrip() for line in drawn[drawn.index("$ ") :].splitlines() if line.strip()]
    printed = [
        timeless(line.expandtabs(8).rstrip())
        for step in recorded
        for line in (f"$ {step['command']}", *step["output"].splitlines())
    ]
    assert shown == [line for line in printed if line]
