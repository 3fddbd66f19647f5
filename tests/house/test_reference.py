"""The reference describes the errnos, commands, options, variables and fields of the code."""

from __future__ import annotations

import ast
import dataclasses
import errno
import json
import re
from pathlib import Path

import click
import pytest

from ocifs import api
from ocifs.cli.main import COMMANDS, group
from ocifs.cli.mount import command as mount
from ocifs.errors import OcifsError
from ocifs.fuse.errno import ERRNO
from ocifs.options import CacheOptions
from ocifs.options.declaration import declared
from ocifs.settings import GIB
from ocifs.store.upkeep.eviction import FLOOR, FLOOR_SHARE, LARGEST, LARGEST_SHARE
from ocifs.watched import Traffic
from scripts import generate_options
from tests.documents.session import blocks, steps
from tests.support.mount import mounted, run_ocifs
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
CLI = (REFERENCE / "cli.md").read_text()


def test_errno_md_is_the_table() -> None:
    rows = re.findall(
        r"^\| (E[A-Z]+) \| ([^|]+) \|", (REFERENCE / "errno.md").read_text(), re.MULTILINE
    )
    written = {
        name: getattr(errno, number)
        for number, classes in rows
        for name in re.findall(r"`(\w+)`", classes)
    }
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


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_is_in_the_reference(name: str, command: click.Command) -> None:
    text = CLI
    assert f"`ocifs {name}" in text
    spelled = [
        each
        for option in command.params
        # A hidden option carries tables of the configuration file, which has its own page.
        if isinstance(option, click.Option) and not option.hidden
        for each in option.opts
    ]
    assert [
        each for each in spelled if not re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", text)
    ] == []


def test_the_reference_has_no_option_that_no_command_has() -> None:
    known = {
        each for _, command in commands() for option in command.params for each in option.opts
    } | {
        "--help",
        "--version",
    }
    written = set(re.findall(r"`(--[a-z][a-z-]+)", (REFERENCE / "cli.md").read_text()))
    assert written <= known


@pytest.mark.parametrize("path", {path for path, _ in generate_options.TABLES.values()})
def test_the_tables_of_options_are_those_of_the_declarations(path: Path) -> None:
    assert generate_options.page(path) == path.read_text(), "run python -m scripts.generate_options"
    for name, (target, _) in generate_options.TABLES.items():
        assert target != path or generate_options.BEGIN.format(name) in path.read_text()


def test_the_bounds_of_the_cache_are_in_the_reference() -> None:
    defaults = {item.name: item.shown_default for item in declared(CacheOptions)}
    assert defaults["cache_size"] == (
        f"{LARGEST // GIB}G, or {LARGEST_SHARE} % of the disk if that is less"
    )
    assert defaults["cache_free"] == (
        f"{FLOOR // GIB}G, or {FLOOR_SHARE} % of the disk if that is less"
    )


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_value_that_an_option_can_have_is_in_the_reference(
    name: str, command: click.Command
) -> None:
    for option in command.params:
        if (
            isinstance(option.type, click.Choice) and option.name != "kinds"
        ):  # these have a separate page
            assert re.search(r"\\\|".join(map(re.escape, option.type.choices)), CLI), (
                name,
                option.name,
            )


def test_the_examples_of_the_reference_print_the_documented_output(tmp_path: Path) -> None:
    shown = [step for block in blocks(CLI) if block.startswith("$ ") for step in steps(block)]
    assert shown
    for step in shown:
        done = run_ocifs(*step.command.split()[1:], cache=tmp_path, check=False)
        assert (done.stdout + done.stderr).decode().strip("\n") == step.output


def test_every_parameter_of_mount_is_a_key_of_the_configuration() -> None:
    keys = {item.name for item in generate_options.configuration_keys()}
    others = {param.name for param in mount.params if param.expose_value} - keys
    # The kinds of the user are tables of their own.
    assert others == {"source", "mountpoint", "any", "own_kinds"}
    others.remove("own_kinds")
    text = (REFERENCE / "configuration.md").read_text()
    assert all(f"`{name}`" in text for name in (*others, "sources"))


# Variables that a shell or systemd sets for ocifs, and users do not.
TOLD = {"COMP_WORDS", "OCIFS_BREAKS", "_OCIFS_COMPLETE", "NOTIFY_SOCKET"}


def test_every_variable_that_the_code_reads_is_in_the_reference() -> None:
    looked = set()
    for path in (ROOT / "ocifs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            place, name = None, None
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "get"
                and node.args
            ):
                place, name = node.func.value, node.args[0]
            if isinstance(node, ast.Subscript):
                place, name = node.value, node.slice
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "absolute"
                and len(node.args) == 2
            ):
                place, name = node.args  # of ocifs.directories
            if (
                place is not None
                and ast.unparse(place).endswith("environ")
                and isinstance(name, ast.Constant)
            ):
                looked.add(name.value)
    assert len(looked) > 15
    pages = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    assert [name for name in looked - TOLD if f"`{name}`" not in pages] == []


def test_every_option_and_method_of_the_python_interface_is_on_its_page() -> None:
    text = (REFERENCE / "python.md").read_text()
    assert [name for name in api.Options.__annotations__ if f"`{name}`" not in text] == []
    methods = {
        name
        for kind in (api.Tree, api.AsyncTree)
        for name in vars(kind)
        if not name.startswith("_")
    }
    assert [name for name in methods if f"`{name}(" not in text] == []
    fields = {field.name for kind in (api.Stat, api.Entry) for field in dataclasses.fields(kind)}
    assert [name for name in fields if f"`{name}`" not in text] == []


def named(value: object) -> set[str]:
    """The fields of an object and of the objects in it.

    Names that are data (operations, errnos, headers) are left out.
    """
    found = set()
    for name, below in value.items() if isinstance(value, dict) else ():
        found.add(name)
        if name not in ("operations", "operation_seconds", "errors", "rate_limits"):
            found |= named(below)
    for each in value if isinstance(value, list) else ():
        found |= named(each)
    return found


@pytest.mark.mount
@pytest.mark.servers
def test_every_field_of_a_mount_is_in_status_json_md(registry: Registry, tmp_path: Path) -> None:
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        list(mount.path.iterdir())
        told = named(json.loads((mount.path / ".ocifs/status.json").read_bytes()))
    text = (REFERENCE / "status-json.md").read_text()
    assert {"source", "cache", "limit", "registries", "endpoints", "role"} <= told
    assert [name for name in told if f"`{name}`" not in text] == []


async def test_every_field_of_a_registry_is_in_status_json_md() -> None:
    text = (REFERENCE / "status-json.md").read_text()
    assert [name for name in Traffic("h").facts() if f"`{name}`" not in text] == []
