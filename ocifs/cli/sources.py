"""From what a user wrote to a source: names for short, several sources, any host.

Rules that hold here: a name is replaced by its alias (containers-registries.conf(5)) before anything else is read into it; what has a
scheme is no name for short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from ocifs.cli.options import SharedOptions
from ocifs.oci.reference import HostsSource, LayoutSource, Reference, RegistrySource, Source, join_sources, parse_source
from ocifs.registry import registries_conf

F = TypeVar("F", bound=Callable[..., object])

EVERY_HOST = HostsSource((), any=True)


def read_sources(texts: Sequence[str], options: SharedOptions, *, any_host: bool = False) -> Source:
    """What sources mean together. Raises InvalidReference, UsageError. Blocks on disk."""
    conf = registries_conf.load(os.environ, options["registries_conf"])
    read = [parse_source(text if text.startswith(("oci:", "oci-archive:")) else conf.expand(text)) for text in texts]
    return join_sources(read, any_host)


def any_option(function: F) -> F:
    """The option `--any` of commands that take a SOURCE and a PATH: it makes SOURCE the beginning of the PATH."""
    return click.option("--any", "any_host", is_flag=True, help="SOURCE is a path that begins with any host.")(function)


def below_any(source: str, path: str, any_host: bool) -> tuple[str | Source, str]:
    """The source and the path that such a command is about."""
    return (EVERY_HOST, f"{source}/{path}" if path else source) if any_host else (source, path)


def how_to_look(source: Source) -> str:
    """The command that shows what there is in place of a source that is not there; empty where there is none."""
    if isinstance(source, Reference):
        return f"`ocifs ls {source.host}/{source.repository} _tags` lists the tags that there are"
    if isinstance(source, RegistrySource) and source.path:
        return f"`ocifs ls {source.host}` lists what there is"
    if isinstance(source, LayoutSource) and source.ref:
        return f"`ocifs ls {LayoutSource(source.path, source.archive)} _tags` lists the names that there are"
    return ""
