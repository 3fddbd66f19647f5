"""Options that several commands share, and how they become settings.

Rules that hold here: an option has the same name and meaning in every command; what the user wrote
is parsed here, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, TypeVar

import click

from ocifs.oci.platform import Platform
from ocifs.settings import (
    CacheSettings,
    NetworkSettings,
    Settings,
    Timing,
    ViewSettings,
    default_cache_directory,
)

F = TypeVar("F", bound=Callable[..., object])


class CacheOptions(TypedDict):
    """What the options of `caching` give to a command."""

    cache_dir: Path | None
    cache_size: int | None
    cache_free: int | None


class SharedOptions(CacheOptions):
    """What the shared options give to a command."""

    plain_http: bool
    insecure_tls: bool
    ca_file: Path | None
    authfile: Path | None
    hosts_dir: Path | None
    registries_conf: Path | None
    offline: bool
    verify: str
    timeout: float
    max_wait: float
    tag_ttl: float
    platform: str | None
    owner: str
    links: str
    soci: bool
    repo: tuple[str, ...]


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in click's newest releases only
    """A number of bytes: `500M`, `20GiB`, `1.5T`; K, M, G, T, with or without iB, are powers of
    1,024.
    """

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = _SIZE.fullmatch(str(value).strip())
        if found is None or isinstance(value, bool):
            self.fail(
                f"invalid size: {value}; use a number with a unit, such as 500M or 20G", param, ctx
            )
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


class Seconds(click.FloatRange):
    """A number of seconds, not negative."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(str(value))
        except ValueError:
            self.fail(f"not a number of seconds: {value}", param, ctx)
        return float(super().convert(number, param, ctx))


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kKmMgGtT]?)(?:i?[bB])?)", re.ASCII)
SIZE = Size()
_EXISTING = click.Path(path_type=Path, exists=True, resolve_path=True)
_TIMING = Timing()

_NETWORK = (
    click.option(
        "--plain-http",
        is_flag=True,
        help="Speak http, not https. On loopback addresses that is understood.",
    ),
    click.option("--insecure-tls", is_flag=True, help="Do not check the registry's certificate."),
    click.option("--ca-file", type=_EXISTING, help="Further certificate authorities (PEM)."),
    click.option("--authfile", type=_EXISTING, help="Credentials, before the usual places."),
    click.option(
        "--hosts-dir",
        type=click.Path(path_type=Path, resolve_path=True, file_okay=False),
        help="containerd's hosts.toml directories.  [/etc/containerd/certs.d]",
    ),
    click.option(
        "--registries-conf",
        type=_EXISTING,
        help="The only containers-registries.conf(5).  [the usual places; /dev/null for none]",
    ),
    click.option(
        "--repo",
        multiple=True,
        help="A repository to list where the registry lists none. May be repeated.",
    ),
)


def _seconds(name: str, default: float, what: str) -> Callable[[F], F]:
    return click.option(
        name, type=Seconds(), default=default, show_default=True, help=f"Seconds {what}."
    )


_CACHE = (
    click.option(
        "--cache-dir",
        type=click.Path(path_type=Path, resolve_path=True),
        help="Where fetched bytes are kept.  [$XDG_CACHE_HOME/ocifs]",
    ),
    click.option(
        "--cache-size",
        type=SIZE,
        help="What the cache may take, like 20G.  [10G or 10 % of the disk]",
    ),
    click.option(
        "--cache-free", type=SIZE, help="What is left free on its disk.  [1G or 5 % of the disk]"
    ),
)

_KEEPING = (
    *_CACHE,
    click.option("--offline", is_flag=True, help="Touch no network; show what is in the cache."),
    click.option(
        "--verify",
        type=click.Choice(["end", "full"]),
        default="end",
        help="Verify a blob before its end is read, or before any of it is.",
    ),
    _seconds("--timeout", _TIMING.timeout, "that anything may take without progress"),
    _seconds("--max-wait", _TIMING.max_wait, "that anything may take in all"),
    _seconds("--tag-ttl", _TIMING.tag_ttl, "for which tags and catalogs are believed"),
)

_SHOWING = (
    click.option(
        "--platform", help="os/architecture[/variant] that an index stands for.  [this machine's]"
    ),
    click.option(
        "--owner",
        type=click.Choice(["user", "keep"]),
        default="user",
        show_default=True,
        help="Owners of files in images: who mounts, or those that the image says.",
    ),
    click.option(
        "--links",
        type=click.Choice(["inside", "raw"]),
        default="inside",
        show_default=True,
        help="Links in images that lead outside: shown so that they stay inside, or as they are.",
    ),
    click.option(
        "--soci",
        is_flag=True,
        help="Believe SOCI indices of images: list layers by them, and fetch parts.",
    ),
)


def shared(function: F) -> F:
    """Give a command the shared options, as keyword arguments of the names in SharedOptions."""
    return _given(function, (*_SHOWING, *_NETWORK, *_KEEPING))


def caching(function: F) -> F:
    """Give a command the options that say where the cache is and how large it may become, as in
    CacheOptions.
    """
    return _given(function, _CACHE)


def _given(function: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    give_variables(getattr(function, "__click_params__", []))
    return function


def give_variables(parameters: Iterable[click.Parameter]) -> None:
    """Let the environment give each of these options: `OCIFS_` and its name."""
    for each in parameters:
        if isinstance(each, click.Option) and each.name:
            each.envvar = each.envvar or f"OCIFS_{each.name.upper()}"


def configurable(command: click.Command) -> bool:
    """Whether a command, or one below it, takes options that the environment and the configuration
    file can give.
    """
    if isinstance(command, click.Group):
        return any(map(configurable, command.commands.values()))
    return "cache_dir" in {each.name for each in command.params}


def cache_settings(options: CacheOptions) -> CacheSettings:
    """Where the cache is, and its bounds."""
    return CacheSettings(
        directory=options["cache_dir"] or default_cache_directory(),
        size=options["cache_size"],
        free_space=options["cache_free"],
    )


def settings_from(options: SharedOptions, *named: str) -> Settings:
    """The settings that the options mean for a source on the named hosts (none for a layout)."""
    hosts = frozenset(named)
    return Settings(
        timing=Timing.within(options["timeout"], options["max_wait"], options["tag_ttl"]),
        cache=replace(
            cache_settings(options),
            verify_full=options["verify"] == "full",
            offline=options["offline"],
        ),
        network=NetworkSettings(
            plain_http=hosts if options["plain_http"] else frozenset(),
            insecure_tls=hosts if options["insecure_tls"] else frozenset(),
            ca_file=options["ca_file"],
            authfile=options["authfile"],
            hosts_directory=options["hosts_dir"],
            registries_conf=options["registries_conf"],
            named_host=named[0] if len(hosts) == 1 else "",
        ),
        view=ViewSettings(
            platform=Platform.parse(options["platform"]) if options["platform"] else None,
            owner=options["owner"],
            links=options["links"],
            soci=options["soci"],
            repositories=options["repo"],
        ),
    )
