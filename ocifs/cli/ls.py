"""`ocifs ls`: list a path of a source without a mount."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Unpack

import click
import trio

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.sources import any_option, below_any
from ocifs.cli.terminal import write
from ocifs.concurrency import ungrouped
from ocifs.errors import Malformed, NotFound, OcifsError
from ocifs.options import Options
from ocifs.tree.base import SymlinkNode
from ocifs.tree.node import Directory, DirectoryEntry, Node, Symlink, partial_entries
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk
from ocifs.verbs.pacer import AT_A_TIME, Pacer

# Links to manifests: by tag, or by digest from a sibling.
_MANIFEST = re.compile(rb"_manifests/[^/]+\Z|(?:\A|\.\./)[a-z0-9]+:[0-9a-f]+\Z")


@click.command("ls", cls=SourceCommand)
@click.argument("source", type=SOURCE)
@click.argument("path", default="", type=PATH)
@click.option(
    "-l", "long", is_flag=True, help="Show type, size, time, kind of artifact and link target."
)
@any_option
@shared
def command(source: str, path: str, any_host: bool, long: bool, **options: Unpack[Options]) -> None:
    """List a path of a source without mounting it.

    The output is that of `ls` in a mount of SOURCE.

    \b
        ocifs ls registry.example.com/team/app _tags
        ocifs ls -l oci:./layout _manifests/1.0
        ocifs ls --any registry.example.com/team/app/_tags
    """
    named, path = below_any(source, path, any_host)

    async def visit(tree: AsyncTree) -> None:
        node = await find_node(tree, path)
        if not isinstance(node, Directory):
            _show(DirectoryEntry(os.fsencode(path.rpartition("/")[2]), node), long, "")
            return
        pacer = Pacer(tree.timing, lambda text: write(f"ocifs: {text}", err=True), tree.status)
        try:
            entries = await pacer.run(node.entries)
        except OcifsError as error:
            # The names that were received before the error, as in a mount.
            for entry in partial_entries(error):
                _show(entry, long, "")
            raise
        if not entries and isinstance(node, RepositoryDirectory):
            await pacer.run(node.explain_emptiness)
        if long:
            await _show_kinds(Listing(pacer, tree.root, path), entries)
            return
        for entry in entries:
            _show(entry, long, "")

    browse(named, options, visit)


@dataclass
class Listing:
    """A listed directory: its tree, its path, and the pacer of requests about its entries."""

    pacer: Pacer
    root: Directory
    path: str


async def _show_kinds(listing: Listing, entries: Sequence[DirectoryEntry]) -> None:
    """Show entries in order, each as soon as its kind and all kinds before it are known.

    A few kinds are requested at a time.
    """
    kinds: list[str | None] = [None] * len(entries)
    shown = 0
    # Shared by the workers, so that each entry is requested once.
    numbers = iter(range(len(entries)))

    async def work() -> None:
        nonlocal shown
        for number in numbers:
            kinds[number] = await _kind(listing, entries[number])
            # Nothing is awaited in this loop, so two workers never show the same entry.
            while shown < len(entries) and (kind := kinds[shown]) is not None:
                _show(entries[shown], True, kind)
                shown += 1

    with ungrouped():
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(work)


async def _kind(listing: Listing, entry: DirectoryEntry) -> str:
    """The kind of the manifest that an entry leads to.

    Empty if it leads to something else, or to a manifest that does not exist.
    """
    # Imported here: a plain listing does not need the modules about manifests.
    from ocifs.tree.manifest.directory import ManifestDirectory

    node: Node = entry.node
    # The attributes of a listed entry may be provisional, and -l prints them.
    if not node.attributes_known:
        await node.restore_attributes()
    if isinstance(node, SymlinkNode) and _MANIFEST.search(node.target):
        path = os.fsencode(listing.path) + b"/" + entry.name
        try:
            node = await listing.pacer.run(partial(walk, listing.root, path))
        except NotFound:
            return ""
    if not isinstance(node, ManifestDirectory):
        return ""
    try:
        return await listing.pacer.run(node.kind)
    except (NotFound, Malformed):
        return ""


def _show(entry: DirectoryEntry, long: bool, kind: str) -> None:
    name = entry.name.decode(errors="surrogateescape")
    if long:
        name = f"{_attributes(entry.node)} {kind or '-':<18} {name}{_target(entry.node)}"
    write(name)


def _attributes(node: Node) -> str:
    attributes = node.attributes
    mtime = datetime.fromtimestamp(attributes.mtime_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{stat.filemode(attributes.mode)} {attributes.size:>12} {mtime}"


def _target(node: Node) -> str:
    if not isinstance(node, Symlink):
        return ""
    return f" -> {node.target.decode(errors='surrogateescape')}"
