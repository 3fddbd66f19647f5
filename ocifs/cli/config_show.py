"""`ocifs config show`: print the options of `ocifs mount` with their values and origins."""

from __future__ import annotations

import json
from typing import TypeAlias

import click
from click.core import ParameterSource

from ocifs.cli import config
from ocifs.cli.errors import nearest
from ocifs.cli.mount import command as mount
from ocifs.cli.param_types import json_option
from ocifs.cli.terminal import write, write_lines
from ocifs.errors import UsageError
from ocifs.oci.kinds.kind import ArtifactKind

OptionRow: TypeAlias = dict[str, object]


@click.group("config")
def command() -> None:
    """Show the configuration and its sources."""


@command.command("show")
@click.argument("name", required=False)
@json_option
def show(name: str | None, as_json: bool) -> None:
    """Show every option of `ocifs mount`, with its value and origin.

    With NAME, show the named mount NAME of the configuration file.
    """
    known = {param.name: param for param in mount.params if param.name and param.expose_value}
    loaded = config.load(lambda: known)
    if name is not None and name not in loaded.mounts:
        hint = nearest(name, loaded.mounts) or "the configuration file has no named mounts"
        raise UsageError(f"unknown mount: {name}", hint=hint)
    # click parses the words of a mount, so every value is that of a mount.
    words = ["SOURCE", "MOUNTPOINT"]
    context = mount.make_context("mount", words, default_map=loaded.defaults(name))
    rows = [_row(context, param, loaded, name) for param in mount.params if param.expose_value]
    rows = [row for row in rows if row["from"]]
    if as_json:
        write_lines(json.dumps({"options": rows, "mounts": sorted(loaded.mounts)}, indent=2))
        return
    width = max(len(str(row["option"])) for row in rows)
    for row in rows:
        write(f"{row['option']:<{width}}  {json.dumps(row['value'])}  ({row['from']})")
    for mount_name in sorted(loaded.mounts) if name is None else ():
        write(f"[mounts.{mount_name}]")


def _row(
    context: click.Context, param: click.Parameter, loaded: config.Config, mount_name: str | None
) -> OptionRow:
    """An option, its value and its origin, which is empty for an argument without a value."""
    name = param.name or ""
    value, origin = context.params[name], loaded.origin_of(name, mount_name)
    if isinstance(param, click.Argument):
        value = loaded.defaults(mount_name).get(name)
    elif (source := context.get_parameter_source(name)) is ParameterSource.ENVIRONMENT:
        origin = f"environment: {param.envvar}"
    elif source is not ParameterSource.DEFAULT_MAP:
        origin = "default"
    return {"option": name.replace("_", "-"), "value": _as_json(value), "from": origin}


def _as_json(value: object) -> object:
    """A value that json.dumps accepts."""
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    if isinstance(value, ArtifactKind):
        return value.name
    return value if isinstance(value, bool | int | float) or value is None else str(value)
