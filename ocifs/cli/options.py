"""The options of commands, made from their declarations (ocifs/options/declared.py).

- An option has the same name and meaning in every command.
- Values are parsed once, by click, whether they come from the command line, the environment or the
  configuration file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click

from ocifs.options import CacheOptions, MountOptions, Options
from ocifs.options.declaration import DeclaredOption, ValueKind, declared
from ocifs.units import parse_size

F = TypeVar("F", bound=Callable[..., object])

_VERBOSITY = "ocifs.verbosity"


class SizeType(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """A number of bytes: `500M`, `20GiB`, `1.5T`, or an integer."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        size = None if isinstance(value, bool) else parse_size(str(value))
        if size is None:
            self.fail(f"invalid size: {value}; use a number and a unit, such as 20G", param, ctx)
        return size


class SecondsType(click.ParamType):  # type: ignore[type-arg]
    """A number of seconds that is not negative."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        # Not `number < 0`, which is false for NaN.
        if not number >= 0:
            self.fail(f"not a number of seconds: {value}", param, ctx)
        return number


class TablesType(click.ParamType):  # type: ignore[type-arg]
    """Tables of the configuration file, which are checked when it is read."""

    name = "tables"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        if isinstance(value, str):
            self.fail("write it as tables in the configuration file", param, ctx)
        return value


_TYPES: dict[ValueKind, click.ParamType] = {  # type: ignore[type-arg]
    ValueKind.SECONDS: SecondsType(),
    ValueKind.SIZE: SizeType(),
    ValueKind.TEXT: click.STRING,
    ValueKind.TEXTS: click.STRING,
    ValueKind.EXISTING: click.Path(path_type=Path, exists=True, resolve_path=True),
    ValueKind.DIRECTORY: click.Path(path_type=Path, resolve_path=True, file_okay=False),
    ValueKind.PATH: click.Path(path_type=Path, resolve_path=True),
    ValueKind.NEW_FILE: click.Path(path_type=Path),
}


def click_option(item: DeclaredOption) -> Callable[[F], F]:
    """The click option of a declaration."""
    names = [item.option.short, item.flag] if item.option.short else [item.flag]
    envvar, text = item.variable or None, item.option.help
    if item.kind is ValueKind.FLAG:
        return click.option(*names, is_flag=True, envvar=envvar, help=text)
    if item.kind is ValueKind.TABLES:
        return click.option(*names, hidden=True, type=TablesType(), help=text)
    if item.kind is ValueKind.COUNT:
        return click.option(*names, count=True, envvar=envvar, help=text)
    return click.option(
        *names,
        type=click.Choice(item.choices) if item.choices else _TYPES[item.kind],
        multiple=item.kind is ValueKind.TEXTS,
        default=item.default,
        metavar=None if item.choices else item.metavar,
        envvar=envvar,
        help=f"{text}  [default: {item.shown_default}]" if item.shown_default else text,
    )


def _with_options(items: Iterable[DeclaredOption]) -> Callable[[F], F]:
    """A decorator that adds options, which the command takes as keyword arguments."""

    def decorate(function: F) -> F:
        # Decorators apply from the last to the first, and --help has the order of declaration.
        for item in reversed(list(items)):
            function = click_option(item)(function)
        return function

    return decorate


def own_options(kind: type, base: type) -> tuple[DeclaredOption, ...]:
    """The options that a declaration adds to another."""
    inherited = {item.name for item in declared(base)}
    return tuple(item for item in declared(kind) if item.name not in inherited)


caching = _with_options(declared(CacheOptions))
"""Add the options about the cache, as in CacheOptions."""
sharing = _with_options((*own_options(Options, CacheOptions), *declared(CacheOptions)))
"""Add the options about a source, as in Options."""


def shared(function: F) -> F:
    """Add the options that all commands about a source share: `-v`, and those of Options.

    `ocifs mount` has its own `-v`, which the environment and the configuration file can set.
    """
    verbose = click.option(
        "-v",
        "--verbose",
        "verbosity",
        count=True,
        expose_value=False,
        callback=_set_verbosity,
        help="Log requests to registries.",
    )
    return verbose(sharing(function))


def _set_verbosity(context: click.Context, _: click.Parameter, count: int) -> None:
    context.meta[_VERBOSITY] = count


def verbosity() -> int:
    """How often `-v` is on the command line of the running command."""
    context = click.get_current_context(silent=True)
    count = context.meta.get(_VERBOSITY, 0) if context else 0
    return count if isinstance(count, int) else 0


mounting = _with_options(own_options(MountOptions, Options))
"""Add the options that only `ocifs mount` has."""


_GROUPS = {item.name: f"{item.option.group} options" for item in declared(Options)}


class SourceCommand(click.Command):
    """A command whose --help lists its own options first, and shared ones in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            # Newer versions of click also have records of arguments, which the usage line shows.
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(_GROUPS.get(param.name or "", "Options"), []).append(record)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def configurable(command: click.Command) -> bool:
    """Whether the configuration file can set options of a command, or of a subcommand."""
    if isinstance(command, click.Group):
        return any(map(configurable, command.commands.values()))
    return "cache_dir" in {param.name for param in command.params}
