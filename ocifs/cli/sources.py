"""From the words of a command line to a source: short names, several sources, any host.

- A short name is replaced by its alias (containers-registries.conf(5)) before it is parsed.
- A word with a scheme or a path is never a short name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from ocifs.errors import UsageError
from ocifs.oci.joined import split_joined
from ocifs.oci.local import LayoutSource, is_local
from ocifs.oci.reference import (
    PLAIN_HTTP,
    HostsSource,
    Reference,
    RegistrySource,
    Source,
    join_sources,
    parse_source,
)
from ocifs.options import Options, path_of
from ocifs.registry.config.registries_conf import expand

F = TypeVar("F", bound=Callable[..., object])

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
EVERY_HOST = HostsSource((), any=True)


def read_sources(texts: Sequence[str], options: Options, *, any_host: bool = False) -> Source:
    """Parse and join sources. Blocks on disk. Raises InvalidReference, UsageError.

    If all of them begin with `http://`, the option `plain_http` is set.
    """
    if texts and all(map(is_plain_http, texts)):
        options["plain_http"] = True
        texts = [text[len(PLAIN_HTTP) :] for text in texts]
    sources = []
    for text in texts:
        _refuse_archive(text)
        sources.append(
            parse_source(expand(text, os.environ, path_of(options.get("registries_conf"))))
        )
    return join_sources(sources, any_host)


def _refuse_archive(text: str) -> None:
    """Raise UsageError for the name of an existing archive, which would be taken for a host."""
    if not is_local(text) and text.endswith(_ARCHIVES) and os.path.isfile(text):
        raise UsageError(
            f"ambiguous source: {text} is a file in this directory", hint=f"write ./{text}"
        )


def any_option(function: F) -> F:
    """Add the option `--any`: SOURCE is then the beginning of PATH, with any host."""
    return click.option(
        "--any", "any_host", is_flag=True, help="Treat SOURCE as a path that begins with a host."
    )(function)


def locate(
    source: str, path: str, options: Options, *, any_host: bool = False
) -> tuple[Source, str]:
    """The source and the path that a command names with SOURCE and PATH, or with one word for both.

    With `any_host`, SOURCE is the beginning of PATH. `http://` sets the option `plain_http`. Blocks
    on disk. Raises InvalidReference and UsageError.
    """
    if any_host:
        return EVERY_HOST, f"{source}/{path}" if path else source
    named, inner = split_word(source, options)
    joined = f"{inner}/{path}" if inner and path else inner or path
    return read_sources([named], options), joined


def split_word(word: str, options: Options) -> tuple[str, str]:
    """The source, and the path in it, of a word such as `HOST/REPOSITORY:TAG/rootfs/etc`."""
    if is_local(word):
        # Imported here: it imports the tree, which a registry's reference does not need.
        from ocifs.cli.joined import split_local

        return split_local(word, options)
    scheme = word[: len(PLAIN_HTTP)] if is_plain_http(word) else ""
    source, path = split_joined(word[len(scheme) :])
    return scheme + source, path


def is_plain_http(word: str) -> bool:
    """Whether a source begins with `http://`."""
    return word.lower().startswith(PLAIN_HTTP)


def how_to_list(source: Source) -> str:
    """A hint with the command that lists the names beside a source, or an empty text."""
    if isinstance(source, Reference):
        return f"list the tags: `ocifs tags {source.host}/{source.repository}`"
    if isinstance(source, RegistrySource) and source.path:
        return f"list the repositories: `ocifs ls {source.host}`"
    if isinstance(source, LayoutSource) and source.ref:
        return f"list the names: `ocifs tags {source.whole}`"
    return ""
