"""`ocifs ls`: list a path of a source without mounting it."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Unpack

import click
import trio

from ocifs.app import Facts
from ocifs.cli.browse import browse, patiently
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.sources import any_option, below_any
from ocifs.cli.terminal import write
from ocifs.cli.throttle import AT_A_TIME, Pace
from ocifs.concurrency import ungrouped
from ocifs.errors import Malformed, NotFound, OcifsError
from ocifs.settings import Timing
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.node import Directory, Entry, Link, Node, Symlink, entries_before
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk

# Links to manifests: by tag, or by digest from beside them.
_MANIFEST = re.compile(rb"_manifests/[^/]+\Z|(?:\A|\.\./)[a-z0-9]+:[0-9a-f]+\Z")


@click.command("ls")
@click.argument("source", type=SOURCE)
@click.argument("path", default="", type=PATH)
@click.option(
    "-l", "long", is_flag=True, help="Show type, size, time, kind of artifact and a link's target."
)
@any_option
@shared
def command(
    source: str, path: str, any_host: bool, long: bool, **options: Unpack[SharedOptions]
) -> None:
    """List PATH of SOURCE, as `ls` would in a mount of it.

    \b
        ocifs ls registry.example.com/team/app _tags
        ocifs ls -l oci:./layout _manifests/1.0
        ocifs ls --any registry.example.com/team/app/_tags
    """
    what, path = below_any(source, path, any_host)

    facts: Facts = {}
    pace = Pace(Timing(), lambda text: write(f"ocifs: {text}", err=True), facts)

    async def visit(root: Directory, timing: Timing) -> None:
        node = await patiently(timing, root, path)
        if not isinstance(node, Directory):
            _show(Entry(path.rpartition("/")[2].encode(), node), long, "")
            return
        pace.timing = timing
        try:
            entries = await pace.run(node.entries)
        except OcifsError as error:
            for entry in entries_before(error):
                _show(entry, long, "")
            raise
        if not entries and isinstance(node, RepositoryDirectory):
            await pace.run(node.explain_emptiness)
        if long:
            await _show_kinds(Listing(pace, root, path), entries)
            return
        for entry in entries:
            _show(entry, long, "")

    browse(what, options, visit, facts)


@dataclass
class Listing:
    """A directory that is listed, in which tree and where, and how fast it may be asked about."""

    pace: Pace
    root: Directory
    path: str


async def _show_kinds(listing: Listing, entries: Sequence[Entry]) -> None:
    """Show entries in their order, each as soon as its kind and those of all before it are known; a
    few are asked for at a time.
    """
    kinds: list[str | None] = [None] * len(entries)
    shown = 0
    numbers = iter(range(len(entries)))

    async def ask() -> None:
        nonlocal shown
        for number in numbers:
            kinds[number] = await _kind(listing, entries[number])
            while shown < len(entries) and (kind := kinds[shown]) is not None:
                _show(entries[shown], True, kind)
                shown += 1

    with ungrouped():
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(ask)


async def _kind(listing: Listing, entry: Entry) -> str:
    """What the manifest is that an entry leads to; empty for what leads to none, or to one that is
    not there.
    """
    node: Node = entry.node
    if not node.settled:
        await node.recall()
    if isinstance(node, Link) and _MANIFEST.search(node.target):
        way = f"{listing.path}/{entry.name.decode(errors='surrogateescape')}".encode(
            errors="surrogateescape"
        )
        try:
            node = await listing.pace.run(partial(walk, listing.root, way))
        except NotFound:
            return ""
    if not isinstance(node, ManifestDirectory):
        return ""
    try:
        return await listing.pace.run(node.kind)
    except (NotFound, Malformed):
        return ""


def _show(entry: Entry, long: bool, kind: str) -> None:
    name = entry.name.decode(errors="surrogateescape")
    write(f"{_facts(entry.node)} {kind or '-':<18} {name}{_target(entry.node)}" if long else name)


def _facts(node: Node) -> str:
    attributes = node.attributes
    when = datetime.fromtimestamp(attributes.mtime_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{stat.filemode(attributes.mode)} {attributes.size:>12} {when}"


def _target(node: Node) -> str:
    return (
        f" -> {node.target.decode(errors='surrogateescape')}" if isinstance(node, Symlink) else ""
    )
