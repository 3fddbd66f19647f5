"""Commands of a document, run in one shell session, and what they printed beside what the document
says they print.

Rules that hold here: a block of code whose lines begin with `$ ` is a session, whose other lines
are output; any other block is commands alone; what differs from run to run (times, ports, owners)
is made equal on both sides by `plain`, and nothing else is.
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
    """A command, and the output that the document shows; None where it shows none and leaves it
    open.
    """

    command: str
    output: str | None


def blocks(text: str) -> list[str]:
    """The indented blocks of code of a document, not indented any more, but for one after `<!-- not
    run: … -->`.
    """
    text = re.sub(
        r"^<!-- not run: [^>]+ -->\n\n(?:^ {4}.*\n|^\n(?= {4}))+", "", text, flags=re.MULTILINE
    )
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def steps(block: str) -> Iterator[Step]:
    """What one block says to do."""
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
    """Text without what differs from run to run."""
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "DATE TIME", text.replace(port, "34099"))
    text = re.sub(r"^total \d+$", "total N", text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def run(found: list[Step], home: Path, environment: Mapping[str, str]) -> list[tuple[Step, str]]:
    """Run the steps in one bash; what each printed, errors included."""
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
