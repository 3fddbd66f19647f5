"""The commands of a document, run in one shell session, with their actual and documented output.

Rules that hold here:
- A code block with lines that begin with `$ ` is a session. Its other lines are output.
- Any other block has commands only.
- `plain` removes the differences between runs (times, ports, owners) from both outputs, and nothing
  else.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = "=~=~= "


@dataclass(frozen=True)
class Step:
    """A command and its documented output, or None if the document shows no output."""

    command: str
    output: str | None


def blocks(text: str) -> list[str]:
    """The code blocks of a document, without their indentation.

    A block after `<!-- not run: … -->` is left out.
    """
    text = re.sub(
        r"^<!-- not run: [^>]+ -->\n\n(?:^ {4}.*\n|^\n(?= {4}))+", "", text, flags=re.MULTILINE
    )
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def steps(block: str) -> Iterator[Step]:
    """The steps of one block."""
    if not block.startswith("$ "):
        yield Step(block, None)
        return
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command += f"\n{more}"
        yield Step(command, output.strip("\n"))


def plain(text: str, port: str = "34099") -> str:
    """The text without the differences between runs."""
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "DATE TIME", text.replace(port, "34099"))
    text = re.sub(r"^total \d+$", "total N", text, flags=re.MULTILINE)
    text = re.sub(r"\bin \d+(\.\d)? s\b", "in N s", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def run(found: list[Step], home: Path, environment: Mapping[str, str]) -> list[tuple[Step, str]]:
    """Run the steps in one bash, and return the output of each, with its errors."""
    script = "shopt -s expand_aliases\nexec 2>&1\n"
    for step in found:
        script += f"{step.command}\necho; echo '{MARK}'\n"
    done = subprocess.run(
        ["bash", "-s"],
        input=script,
        cwd=home,
        env=dict(environment),
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=False,
    )
    printed = done.stdout.split(f"\n{MARK}\n")
    assert len(printed) == len(found) + 1, done.stdout
    return list(zip(found, printed[:-1], strict=True))
