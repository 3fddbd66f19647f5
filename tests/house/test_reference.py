"""The reference says what the code does: errnos, commands, options, variables, fields."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import click
import pytest

from ocifs.cli.main import COMMANDS, group
from ocifs.errors import OcifsError
from ocifs.fuse.errno import ERRNO
from ocifs.watched import Traffic

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_errno_md_is_the_table() -> None:
    rows = re.findall(r"^\| (E[A-Z]+) \| ([^|]+) \|", (REFERENCE / "errno.md").read_text(), re.MULTILINE)
    written = {name: getattr(errno, number) for number, classes in rows for name in re.findall(r"`(\w+)`", classes)}
    table = {kind.__name__: number for kind, number in ERRNO.items() if kind is not OcifsError}
    assert written == table


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = []
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        below = command.commands.items() if isinstance(command, click.Group) else ()
        found += [(f"{name} {each}", inner) for each, inner in below] or [(name, command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_option_is_in_the_reference(name: str, command: click.Command) -> None:
    text = (REFERENCE / "cli.md").read_text()
    assert f"`ocifs {name}" in text
    spelled = [each for option in command.params if isinstance(option, click.Option) for each in option.opts]
    assert [each for each in spelled if not re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", text)] == []


def test_the_reference_has_no_option_that_no_command_has() -> None:
    known = {each for _, command in commands() for option in command.params for each in option.opts} | {
        "--help",
        "--version",
    }
    written = set(re.findall(r"`(--[a-z][a-z-]+)", (REFERENCE / "cli.md").read_text()))
    assert written <= known


@pytest.mark.parametrize("option", ["timeout", "max-wait", "tag-ttl"])
def test_defaults_are_those_of_the_code(option: str) -> None:
    text = (REFERENCE / "cli.md").read_text()
    written = re.search(rf"`--{option} \w+` \| ([\d.]+)", text)
    mount = next(command for name, command in commands() if name == "mount")
    default = next(each.default for each in mount.params if each.name == option.replace("-", "_"))
    assert written is not None and float(written[1]) == default


async def test_every_field_of_a_registry_is_in_status_json_md() -> None:
    text = (REFERENCE / "status-json.md").read_text()
    assert [name for name in Traffic("h").facts() if f"`{name}`" not in text] == []
