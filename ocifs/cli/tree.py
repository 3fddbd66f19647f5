"""`ocifs tree`: print everything below a path of a source without a mount."""

from __future__ import annotations

import os
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.sources import any_option, below_any
from ocifs.cli.terminal import write
from ocifs.errors import NotADirectory
from ocifs.options import Options
from ocifs.tree.node import Directory, Symlink
from ocifs.tree.registry.namespace import RepositoryDirectory


@click.command("tree", cls=SourceCommand)
@click.argument("source", type=SOURCE)
@click.argument("path", default="", type=PATH)
@click.option(
    "-L",
    "--level",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Descend at most this many levels.",
)
@any_option
@shared
def command(
    source: str, path: str, any_host: bool, level: int | None, **options: Unpack[Options]
) -> None:
    """Show the tree below a path of a source.

    Symbolic links are shown but not followed, so only names are fetched.

    \b
        ocifs tree -L 2 registry.example.com/team
    """
    named, path = below_any(source, path, any_host)

    async def show(tree: AsyncTree, node: Directory, indent: str, depth: int) -> None:
        with tree.deadline():
            entries = await node.entries()
        for number, entry in enumerate(entries, 1):
            last = number == len(entries)
            child = entry.node
            target = f" -> {os.fsdecode(child.target)}" if isinstance(child, Symlink) else ""
            write(f"{indent}{'└── ' if last else '├── '}{os.fsdecode(entry.name)}{target}")
            if isinstance(child, Directory) and (level is None or depth < level):
                await show(tree, child, indent + ("    " if last else "│   "), depth + 1)

    async def visit(tree: AsyncTree) -> None:
        node = await find_node(tree, path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"not a directory: {path}")
        if isinstance(node, RepositoryDirectory):
            with tree.deadline():
                if not await node.entries():
                    await node.explain_emptiness()
        write(path or source)
        await show(tree, node, "", 1)

    browse(named, options, visit)
