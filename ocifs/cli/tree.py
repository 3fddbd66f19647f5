"""`ocifs tree`: print everything below a path of a source without a mount."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.ls_rows import type_of
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import JOINED, PATH, json_option
from ocifs.cli.sources import any_option, locate
from ocifs.cli.terminal import write, write_lines
from ocifs.errors import NotADirectory
from ocifs.options import Options
from ocifs.tree.node import Directory, Node, Symlink
from ocifs.tree.registry.namespace import RepositoryDirectory


@click.command("tree", cls=SourceCommand)
@click.argument("source", type=JOINED)
@click.argument("path", default="", type=PATH)
@click.option(
    "-L",
    "--level",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Descend at most this many levels.",
)
@json_option
@any_option
@shared
def command(
    source: str,
    path: str,
    any_host: bool,
    as_json: bool,
    level: int | None,
    **options: Unpack[Options],
) -> None:
    """Show the tree below a path of a source.

    Symbolic links are shown but not followed, so only names are fetched.

    \b
        ocifs tree -L 2 registry.example.com/team
        ocifs tree registry.example.com/team/app:v1/rootfs/etc
    """
    shown = path or source
    located, path = locate(source, path, options, any_host=any_host)

    async def visit(tree: AsyncTree) -> None:
        node = await find_node(tree, path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"not a directory: {path}")
        if isinstance(node, RepositoryDirectory):
            with tree.deadline():
                if not await node.entries():
                    await node.explain_emptiness()
        if as_json:
            write_lines(json.dumps(await _as_json(tree, shown, node, level), indent=2))
            return
        write(shown)
        await _Lines(tree, level).show(node, "", 1)

    browse(located, options, visit)


@dataclass(frozen=True, slots=True)
class _Lines:
    """Prints a tree with lines that connect its names. `level` is the greatest depth, if any."""

    tree: AsyncTree
    level: int | None

    async def show(self, node: Directory, indent: str, depth: int) -> None:
        with self.tree.deadline():
            entries = await node.entries()
        for number, entry in enumerate(entries, 1):
            last = number == len(entries)
            child = entry.node
            target = f" -> {os.fsdecode(child.target)}" if isinstance(child, Symlink) else ""
            write(f"{indent}{'└── ' if last else '├── '}{os.fsdecode(entry.name)}{target}")
            if isinstance(child, Directory) and (self.level is None or depth < self.level):
                await self.show(child, indent + ("    " if last else "│   "), depth + 1)


async def _as_json(tree: AsyncTree, name: str, node: Node, level: int | None) -> dict[str, object]:
    """A node and its descendants: the schema is in docs/reference/cli.md."""
    children: list[dict[str, object]] | None = None
    if isinstance(node, Directory) and (level is None or level > 0):
        with tree.deadline():
            entries = await node.entries()
        below = None if level is None else level - 1
        children = [
            await _as_json(tree, os.fsdecode(entry.name), entry.node, below) for entry in entries
        ]
    return {
        "name": name,
        "type": type_of(node),
        "target": os.fsdecode(node.target) if isinstance(node, Symlink) else None,
        "children": children,
    }
