"""`ocifs cat`: write files of a source to standard output without a mount."""

from __future__ import annotations

import sys
from functools import partial
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import JOINED, PATH
from ocifs.cli.sources import any_option, locate, split_word
from ocifs.concurrency import in_thread
from ocifs.errors import IsADirectory, UsageError
from ocifs.oci.reference import Source, is_registry_name
from ocifs.options import Options
from ocifs.settings import MIB
from ocifs.tree.node import File


@click.command("cat", cls=SourceCommand)
@click.argument("source", type=JOINED)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=PATH)
@any_option
@shared
def command(
    source: str, paths: tuple[str, ...], any_host: bool, **options: Unpack[Options]
) -> None:
    """Write files of a source to standard output, one after the other.

    Each PATH is a file of SOURCE. A source and a path can be one word.

    \b
        ocifs cat registry.example.com/team/app:v1 config.json | jq .
        ocifs cat registry.example.com/team/app:v1/rootfs/etc/os-release
    """
    for located, names in _located(source, paths, any_host, options):
        browse(located, options, partial(_write, names))
    sys.stdout.buffer.flush()


def _located(
    source: str, paths: tuple[str, ...], any_host: bool, options: Options
) -> list[tuple[Source, list[str]]]:
    """The sources in order, each with its files.

    After a word that is a source and a path, further words may be that as well.
    """
    located, inner = locate(source, "", options, any_host=any_host)
    if not paths and not inner:
        raise UsageError("missing argument PATH", hint="ocifs cat SOURCE PATH")
    if not inner or not paths:
        return [(located, list(paths) or [inner])]
    if not any_host and not any(_is_joined(path, options) for path in paths):
        # One word for the source and a directory, and files of that directory.
        return [(located, [f"{inner}/{path}" for path in paths])]
    groups = [(located, [inner])]
    for path in paths:
        further, name = locate(path, "", options, any_host=any_host)
        if further == groups[-1][0]:
            groups[-1][1].append(name)
        else:
            groups.append((further, [name]))
    return groups


def _is_joined(word: str, options: Options) -> bool:
    """Whether a word begins with a host and contains a path: `HOST/REPOSITORY:TAG/PATH`."""
    source, path = split_word(word, options)
    return bool(path) and ("://" in word or is_registry_name(source.partition("/")[0]))


async def _write(paths: list[str], tree: AsyncTree) -> None:
    for path in paths:
        node = await find_node(tree, path)
        if not isinstance(node, File):
            raise IsADirectory(f"is a directory: {path}")
        offset = 0
        while True:
            with tree.deadline():
                chunk = await node.read(offset, MIB)
            if not chunk:
                break
            offset += len(chunk)
            # A full pipe blocks, and would stop the fetches in the event loop.
            await in_thread(sys.stdout.buffer.write, chunk)
    sys.stdout.buffer.flush()
