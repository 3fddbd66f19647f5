"""`ocifs ls`: list a path of a source without mounting it."""

from __future__ import annotations

import re
import stat
from datetime import UTC, datetime
from typing import Unpack

import click

from ocifs.cli.browse import browse, patiently
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.words import PATH, SOURCE
from ocifs.concurrency import patience
from ocifs.errors import Malformed, NotFound
from ocifs.settings import Timing
from ocifs.tree.manifest import ManifestDirectory
from ocifs.tree.node import Directory, Entry, Link, Node, Symlink

# Links to manifests: by tag, or by digest from beside them.
_MANIFEST = re.compile(rb"_manifests/[^/]+\Z|(?:\A|\.\./)[a-z0-9]+:[0-9a-f]+\Z")


@click.command("ls")
@click.argument("source", type=SOURCE)
@click.argument("path", default="", type=PATH)
@click.option("-l", "long", is_flag=True, help="Show type, size, time, kind of artifact and a link's target.")
@shared
def command(source: str, path: str, long: bool, **options: Unpack[SharedOptions]) -> None:
    """List PATH of SOURCE, as `ls` would in a mount of it.

    \b
        ocifs ls registry.example.com/team/app _tags
        ocifs ls -l oci:./layout _manifests/1.0
    """

    async def visit(root: Directory, timing: Timing) -> None:
        node = await patiently(timing, root, path)
        if not isinstance(node, Directory):
            _show(Entry(path.rpartition("/")[2].encode(), node), long, "")
            return
        with patience(timing.timeout, timing.max_wait):
            entries = await node.entries()
        for entry in entries:
            _show(entry, long, await _kind(timing, root, path, entry) if long else "")

    browse(source, options, visit)


async def _kind(timing: Timing, root: Directory, path: str, entry: Entry) -> str:
    """What the manifest is that an entry leads to; empty for what leads to none, or to one that is not there."""
    node: Node = entry.node
    if isinstance(node, Link) and _MANIFEST.search(node.target):
        try:
            node = await patiently(timing, root, f"{path}/{entry.name.decode(errors='surrogateescape')}")
        except NotFound:
            return ""
    if not isinstance(node, ManifestDirectory):
        return ""
    try:
        with patience(timing.timeout, timing.max_wait):
            return await node.kind()
    except (NotFound, Malformed):
        return ""
    raise AssertionError("patience raises when it ends")


def _show(entry: Entry, long: bool, kind: str) -> None:
    name = entry.name.decode(errors="surrogateescape")
    click.echo(f"{_facts(entry.node)} {kind or '-':<18} {name}{_target(entry.node)}" if long else name)


def _facts(node: Node) -> str:
    attributes = node.attributes
    when = datetime.fromtimestamp(attributes.mtime_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{stat.filemode(attributes.mode)} {attributes.size:>12} {when}"


def _target(node: Node) -> str:
    return f" -> {node.target.decode(errors='surrogateescape')}" if isinstance(node, Symlink) else ""
