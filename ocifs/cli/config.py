"""The configuration file: options that need not be typed again, and mounts that have a name.

    /etc/ocifs/config.toml, then $XDG_CONFIG_HOME/ocifs/config.toml, which wins:

    timeout = 10                      an option of any command, by its long name
    [mounts.work]                     `ocifs mount work`
    source = "registry.example.com"   or sources = ["ghcr.io", "quay.io"], or any = true
    mountpoint = "/mnt/work"
    platform = "linux/arm64"          any option of `ocifs mount`

Rules that hold here: the command line wins over the environment, that over the file, that over the
default, and click is what decides so; a name that no option has is an error which says where it
stands; no secret is in the file, only where to find it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from ocifs.cli.terminal import write
from ocifs.directories import config_home
from ocifs.errors import UsageError
from ocifs.userfiles import read_user_file, unsafe_permissions

SYSTEM = Path("/etc/ocifs/config.toml")
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Value:
    """A value, and where it stands."""

    value: object
    place: str


@dataclass(frozen=True, slots=True)
class Config:
    """What the files say. Names of options are as parameters have them: `tag_ttl`."""

    options: dict[str, Value] = field(default_factory=dict)
    mounts: dict[str, dict[str, Value]] = field(default_factory=dict)

    def defaults(self, mount: str | None = None) -> dict[str, object]:
        """What takes the place of the options' defaults; those of a named mount win."""
        merged = {**self.options, **self.mounts.get(mount or "", {})}
        return {name: each.value for name, each in merged.items()}

    def sources(self, mount: str) -> tuple[str, ...]:
        """What a named mount mounts."""
        found = self.mounts[mount].get("source")
        value = found.value if found else ()
        return (
            (value,)
            if isinstance(value, str)
            else tuple(map(str, value))
            if isinstance(value, list)
            else ()
        )

    def place_of(self, name: str, mount: str | None) -> str:
        """Which part of which file an option's value comes from."""
        found = self.mounts.get(mount or "", {}).get(name) or self.options.get(name)
        return found.place if found else ""


def files() -> list[Path]:
    """Where configuration is looked for, weakest first; `OCIFS_CONFIG` names the only one."""
    only = os.environ.get("OCIFS_CONFIG")
    if only:
        return [Path(only)]
    return [SYSTEM, config_home(os.environ) / "ocifs" / "config.toml"]


def load(known: Mapping[str, click.Parameter]) -> Config:
    """Read the files; `known` are the parameters of `ocifs mount`, which has them all.

    Raises UsageError.
    """
    config = Config()
    for path in files():
        table = _read(path)
        mounts = table.pop("mounts", {})
        config.options.update(_checked(table, known, f"{path}", {"source", "mountpoint", "any"}))
        if not isinstance(mounts, dict):
            raise UsageError(f"{path}: mounts is no table", hint="write [mounts.NAME]")
        for name, options in mounts.items():
            place = f"{path}: mounts.{name}"
            if not isinstance(options, dict):
                raise UsageError(f"{place} is no table", hint=f"write [mounts.{name}]")
            config.mounts[name] = _mount(dict(options), known, place)
    return config


def _mount(
    options: dict[str, object], known: Mapping[str, click.Parameter], place: str
) -> dict[str, Value]:
    """A named mount: `source`, or `sources`, or `any = true`, and options beside it."""
    several = options.pop("sources", None)
    if several is None:
        named = isinstance(options.get("source"), str) or options.get("any") is True
        if not named or not isinstance(options.get("source", ""), str):
            raise UsageError(f"{place} has no source", hint='add: source = "registry.example.com"')
        return _checked(options, known, place)
    if "source" in options:
        raise UsageError(f"{place} has source and sources", hint="one of them is enough")
    if (
        not isinstance(several, list)
        or not several
        or not all(isinstance(each, str) for each in several)
    ):
        raise UsageError(f"{place}: sources is no list of strings")
    return {**_checked(options, known, place), "source": Value(several, place)}


def _read(path: Path) -> dict[str, object]:
    try:
        content = read_user_file(path, _LARGEST + 1)
        if why := unsafe_permissions(path):
            write(f"ocifs: the configuration is read from a file that is not safe: {why}", err=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if os.environ.get("OCIFS_CONFIG"):
            raise UsageError(
                f"{path} cannot be read: {error.strerror}", hint="OCIFS_CONFIG names it"
            ) from None
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise UsageError(f"{path} has more than {_LARGEST} bytes")
    try:
        return tomllib.loads(content.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # tomllib.TOMLDecodeError, which says line and column, is a ValueError
        raise UsageError(f"{path}: {error}") from None


def _checked(
    table: Mapping[str, object],
    known: Mapping[str, click.Parameter],
    place: str,
    without: Iterable[str] = (),
) -> dict[str, Value]:
    """The options of a table, each one known and of a value that it can have."""
    found = {}
    names = known.keys() - set(without)
    for written, value in table.items():
        name = written.replace("-", "_")
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]}?" if close else "`ocifs config show` lists the names"
            if isinstance(value, dict):
                hint = "a mount that has a name is a table [mounts.NAME]"
            raise UsageError(f"{place}: {written} is no option", hint=hint)
        found[name] = Value(_converted(known[name], value, f"{place}: {written}"), place)
    return found


def _converted(parameter: click.Parameter, value: object, place: str) -> object:
    """A value as click takes a default; what it would not take is told by its place in the file."""
    several = isinstance(value, list)
    if several != bool(parameter.multiple if isinstance(parameter, click.Option) else False):
        raise UsageError(f"{place}: {'one value' if several else 'a list'} is wanted")
    if isinstance(parameter, click.Option) and parameter.is_flag and not isinstance(value, bool):
        raise UsageError(f"{place}: {value!r} is neither true nor false")
    if isinstance(value, dict):
        raise UsageError(f"{place}: a table is no value of an option")
    if isinstance(value, str) and value.startswith("~/") and isinstance(parameter.type, click.Path):
        value = os.path.expanduser(value)
    try:
        for each in value if isinstance(value, list) else [value]:
            parameter.type.convert(each, parameter, None)
    except (click.ClickException, TypeError) as error:
        text = error.message if isinstance(error, click.ClickException) else str(error)
        raise UsageError(f"{place}: {text}") from None
    return value
