"""`ocifs config`: what the configuration says, and where each value comes from."""

from __future__ import annotations

import json
from typing import TypeAlias

import click
from click.core import ParameterSource

from ocifs.cli import config
from ocifs.cli.errors import nearest
from ocifs.cli.mount import command as mount
from ocifs.cli.terminal import write, write_lines
from ocifs.errors import UsageError

Row: TypeAlias = dict[str, object]


@click.group("config")
def command() -> None:
    """Look at the configuration."""


@command.command("show")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(name: str | None, as_json: bool) -> None:
    """Show every option of `ocifs mount`, or of the named mount NAME, with its value and where that
    comes from.
    """
    known = {each.name: each for each in mount.params if each.name}
    loaded = config.load(known)
    if name is not None and name not in loaded.mounts:
        hint = nearest(name, loaded.mounts) or "the configuration file has no named mounts"
        raise UsageError(f"unknown mount: {name}", hint=hint)
    # The words stand for what the command line would give; the options are decided as a mount would
    # decide them.
    context = mount.make_context(
        "mount", ["SOURCE", "MOUNTPOINT"], default_map=loaded.defaults(name)
    )
    rows = [_row(context, each, loaded, name) for each in mount.params]
    rows = [row for row in rows if row["from"]]
    if as_json:
        write_lines(json.dumps({"options": rows, "mounts": sorted(loaded.mounts)}, indent=2))
        return
    width = max(len(str(row["option"])) for row in rows)
    for row in rows:
        write(f"{row['option']:<{width}}  {json.dumps(row['value'])}  ({row['from']})")
    for each in sorted(loaded.mounts) if name is None else ():
        write(f"[mounts.{each}]")


def _row(
    context: click.Context,
    parameter: click.Parameter,
    loaded: config.Config,
    mount_name: str | None,
) -> Row:
    """An option, its value, and where that comes from (empty for an argument that the file does not
    give).
    """
    name = parameter.name or ""
    value, where = context.params[name], loaded.place_of(name, mount_name)
    if isinstance(parameter, click.Argument):
        value = loaded.defaults(mount_name).get(name)
    elif (source := context.get_parameter_source(name)) is ParameterSource.ENVIRONMENT:
        where = f"environment: {parameter.envvar}"
    elif source is not ParameterSource.DEFAULT_MAP:
        where = "default"
    return {"option": name.replace("_", "-"), "value": _plain(value), "from": where}


def _plain(value: object) -> object:
    """A value as JSON has it."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float) or value is None else str(value)
