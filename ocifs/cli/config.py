"""The configuration file: default values of options, and named mounts.

    /etc/ocifs/config.toml, then $XDG_CONFIG_HOME/ocifs/config.toml, which takes precedence:

    timeout = 10                      an option of any command, by its long name
    [mounts.work]                     `ocifs mount work`
    source = "registry.example.com"   or sources = ["ghcr.io", "quay.io"], or any = true
    mountpoint = "/mnt/work"
    platform = "linux/arm64"          any option of `ocifs mount`
    [kinds.acme-report]               a kind of artifact (ocifs/options/own_kinds.py)

Read once by each command, before its arguments are parsed.

- The command line takes precedence over the environment, which takes precedence over the file.
  click implements that order.
- Unknown names and invalid values are errors that name the file and the table.
- The file contains no secrets, only the names of credentials files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from ocifs.cli.terminal import write
from ocifs.directories import config_home
from ocifs.errors import UsageError
from ocifs.oci.kinds.kind import ArtifactKind
from ocifs.userfiles import read_user_file, unsafe_permissions

SYSTEM = Path("/etc/ocifs/config.toml")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ConfiguredValue:
    """A value and its origin: the file, and the table if there is one."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """The content of the files. Options have the names of parameters: `tag_ttl`."""

    options: dict[str, ConfiguredValue] = field(default_factory=dict)
    mounts: dict[str, dict[str, ConfiguredValue]] = field(default_factory=dict)

    def defaults(self, mount: str | None = None) -> dict[str, object]:
        """The values by option; those of a named mount take precedence."""
        merged = {**self.options, **self.mounts.get(mount or "", {})}
        return {name: configured.value for name, configured in merged.items()}

    def sources(self, mount: str) -> tuple[str, ...]:
        """The sources of a named mount."""
        source = self.mounts[mount].get("source")
        value = source.value if source else ()
        if isinstance(value, str):
            return (value,)
        return tuple(map(str, value)) if isinstance(value, list) else ()

    def origin_of(self, name: str, mount: str | None) -> str:
        """The origin of an option's value, or an empty text."""
        configured = self.mounts.get(mount or "", {}).get(name) or self.options.get(name)
        return configured.origin if configured else ""


def files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files in ascending order of precedence, or the only one if OCIFS_CONFIG is set."""
    only = environ.get("OCIFS_CONFIG")
    if only:
        return [Path(only)]
    return [SYSTEM, config_home(environ) / "ocifs" / "config.toml"]


def load(parameters: Callable[[], Mapping[str, click.Parameter]]) -> Config:
    """Read the files. `parameters` returns those of `ocifs mount`, which include all options.

    It is called only if there is a file. Raises UsageError.
    """
    config, declared = Config(), dict[str, ArtifactKind]()
    for path in files():
        table = _read(path)
        if not table:
            continue
        known = parameters()
        mounts = table.pop("mounts", {})
        if "kinds" in table:
            # Imported here because it imports the table of kinds, which most commands do not need.
            from ocifs.options.own_kinds import own_kinds

            declared.update((kind.name, kind) for kind in own_kinds(table.pop("kinds"), f"{path}"))
        # A source and a mount point belong to one mount, so they are not defaults of all commands.
        config.options.update(_checked(table, known, f"{path}", {"source", "mountpoint", "any"}))
        if not isinstance(mounts, dict):
            raise UsageError(f"{path}: mounts is not a table", hint="write [mounts.NAME]")
        for name, options in mounts.items():
            origin = f"{path}: mounts.{name}"
            if not isinstance(options, dict):
                raise UsageError(f"{origin} is not a table", hint=f"write [mounts.{name}]")
            config.mounts[name] = _mount(dict(options), known, origin)
    if declared:
        # Those of the user precede those of the system.
        kinds = tuple(reversed(declared.values()))
        config.options["own_kinds"] = ConfiguredValue(kinds, kinds[0].origin.partition(" of ")[2])
    return config


def options_of_mount() -> dict[str, click.Parameter]:
    """The parameters of `ocifs mount`, which include all that the files can set."""
    from ocifs.cli.mount import command

    return {param.name: param for param in command.params if param.name and param.expose_value}


def _mount(
    options: dict[str, object], known: Mapping[str, click.Parameter], origin: str
) -> dict[str, ConfiguredValue]:
    """A named mount: `source`, `sources` or `any = true`, and options."""
    several = options.pop("sources", None)
    if several is None:
        named = isinstance(options.get("source"), str) or options.get("any") is True
        if not named or not isinstance(options.get("source", ""), str):
            hint = 'add: source = "registry.example.com"'
            raise UsageError(f"{origin}: missing source", hint=hint)
        return _checked(options, known, origin)
    if "source" in options:
        raise UsageError(f"{origin}: both source and sources are set", hint="remove one of them")
    if (
        not isinstance(several, list)
        or not several
        or not all(isinstance(source, str) for source in several)
    ):
        raise UsageError(f"{origin}: sources is not a list of strings")
    return {**_checked(options, known, origin), "source": ConfiguredValue(several, origin)}


def _read(path: Path) -> dict[str, object]:
    try:
        # One byte more than allowed, to detect larger files without reading them whole.
        content = read_user_file(path, _MAX_BYTES + 1)
        if why := unsafe_permissions(path):
            write(f"ocifs: unsafe permissions of the configuration file: {why}", err=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if os.environ.get("OCIFS_CONFIG"):
            text = f"cannot read {path}: {error.strerror}"
            raise UsageError(text, hint="OCIFS_CONFIG names this file") from None
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise UsageError(f"file too large: {path} (more than {_MAX_BYTES} bytes)")
    # Most users have no file, so its parser is imported here.
    import tomllib

    try:
        return tomllib.loads(content.decode())
    # A TOMLDecodeError, which contains line and column, is a ValueError.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None


def _checked(
    table: Mapping[str, object],
    known: Mapping[str, click.Parameter],
    origin: str,
    without: Iterable[str] = (),
) -> dict[str, ConfiguredValue]:
    """The options of a table. Raises UsageError for an unknown name or an invalid value."""
    configured = {}
    names = known.keys() - {*without, "own_kinds"}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            import difflib

            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]}?" if close else "list the names: `ocifs config show`"
            if isinstance(value, dict):
                hint = "the table of a named mount is [mounts.NAME]"
            raise UsageError(f"{origin}: unknown option: {key}", hint=hint)
        converted = _converted(known[name], value, f"{origin}: {key}")
        configured[name] = ConfiguredValue(converted, origin)
    return configured


def _converted(parameter: click.Parameter, value: object, origin: str) -> object:
    """A value as click takes a default. Raises UsageError, with its origin, if it is invalid."""
    is_list = isinstance(value, list)
    if is_list != bool(parameter.multiple if isinstance(parameter, click.Option) else False):
        raise UsageError(f"{origin}: expected {'one value' if is_list else 'a list'}")
    if isinstance(parameter, click.Option) and parameter.is_flag and not isinstance(value, bool):
        raise UsageError(f"{origin}: expected true or false: {value!r}")
    if isinstance(value, dict):
        raise UsageError(f"{origin}: expected a value, not a table")
    if isinstance(value, str) and value.startswith("~/") and isinstance(parameter.type, click.Path):
        # On the command line, the shell expands a tilde. In a file there is no shell.
        value = os.path.expanduser(value)
    try:
        # The results are discarded: click converts the values of its default map itself.
        for item in value if isinstance(value, list) else [value]:
            parameter.type.convert(item, parameter, None)
    except (click.ClickException, TypeError) as error:
        text = error.message if isinstance(error, click.ClickException) else str(error)
        raise UsageError(f"{origin}: {text}") from None
    return value
