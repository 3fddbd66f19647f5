"""From what a user wrote to a source: names for short, several sources, any host.

Rules that hold here: a name is replaced by its alias (containers-registries.conf(5)) before
anything else is read into it; what has a scheme is no name for short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from ocifs.cli.options import SharedOptions
from ocifs.errors import UsageError
from ocifs.oci.local import LayoutSource, is_local
from ocifs.oci.reference import (
    HostsSource,
    Reference,
    RegistrySource,
    Source,
    join_sources,
    parse_source,
)
from ocifs.registry.config.registries_conf import expand

F = TypeVar("F", bound=Callable[..., object])

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
EVERY_HOST = HostsSource((), any=True)


def read_sources(texts: Sequence[str], options: SharedOptions, *, any_host: bool = False) -> Source:
    """What sources mean together. Raises InvalidReference, UsageError. Blocks on disk."""
    read = []
    for text in texts:
        _refuse_file(text)
        read.append(parse_source(expand(text, os.environ, options["registries_conf"])))
    return join_sources(read, any_host)


def _refuse_file(text: str) -> None:
    """Raise UsageError for the name of an archive that is here: as a source it would be sent to a
    registry.
    """
    if not is_local(text) and text.endswith(_ARCHIVES) and os.path.isfile(text):
        raise UsageError(
            f"{text} is a file here, and a path begins with a dot or a slash",
            hint=f"name it as ./{text}",
        )


def any_option(function: F) -> F:
    """The option `--any` of commands that take a SOURCE and a PATH: it makes SOURCE the beginning
    of the PATH.
    """
    return click.option(
        "--any", "any_host", is_flag=True, help="SOURCE is a path that begins with any host."
    )(function)


def below_any(source: str, path: str, any_host: bool) -> tuple[str | Source, str]:
    """The source and the path that such a command is about."""
    return (EVERY_HOST, f"{source}/{path}" if path else source) if any_host else (source, path)


def how_to_look(source: Source) -> str:
    """The command that shows what there is in place of a source that is not there; empty where
    there is none.
    """
    if isinstance(source, Reference):
        return f"`ocifs ls {source.host}/{source.repository} _tags` lists the tags that there are"
    if isinstance(source, RegistrySource) and source.path:
        return f"`ocifs ls {source.host}` lists what there is"
    if isinstance(source, LayoutSource) and source.ref:
        return f"`ocifs ls {source.whole} _tags` lists the names that there are"
    return ""


def no_single_manifest(source: str) -> UsageError:
    """The error of a command that is about one manifest, for a source that has several."""
    hint = (
        f"add a name: `ocifs ls {source} _tags` lists them"
        if is_local(source)
        else "add :TAG or @DIGEST"
    )
    return UsageError(f"{source} names no single manifest", hint=hint)
