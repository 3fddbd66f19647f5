"""`ocifs tree`: show what is below a path of a source without mounting it."""

from __future__ import annotations

import os
from typing import Unpack

import click

from ocifs.cli.browse import browse, patiently
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.sources import any_option, below_any
from ocifs.cli.terminal import write
from ocifs.concurrency import patience
from ocifs.errors import NotADirectory
from ocifs.settings import Timing
from ocifs.tree.node import Directory, Symlink
from ocifs.tree.registry.namespace import RepositoryDirectory


@click.command("tree")
@click.argument("source", type=SOURCE)
@click.argument("path", default="", type=PATH)
@click.option(
    "-L",
    "--level",
    type=click.IntRange(min=1),
    default=None,
    help="Go at most this many levels down.",
)
@any_option
@shared
def command(
    source: str, path: str, any_host: bool, level: int | None, **options: Unpack[SharedOptions]
) -> None:
    """Show what is below PATH of SOURCE.

    Links are shown, not followed, so names are all that is fetched.
    """
    what, path = below_any(source, path, any_host)

    async def show(node: Directory, timing: Timing, indent: str, depth: int) -> None:
        with patience(timing.timeout, timing.max_wait):
            entries = await node.entries()
        for number, entry in enumerate(entries):
            last = number == len(entries) - 1
            target = (
                f" -> {os.fsdecode(entry.node.target)}" if isinstance(entry.node, Symlink) else ""
            )
            write(f"{indent}{'└── ' if last else '├── '}{os.fsdecode(entry.name)}{target}")
            if isinstance(entry.node, Directory) and (level is None or depth < level):
                await show(entry.node, timing, indent + ("    " if last else "│   "), depth + 1)

    async def visit(root: Directory, timing: Timing) -> None:
        node = await patiently(timing, root, path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"{path!r} is no directory")
        if isinstance(node, RepositoryDirectory):
            with patience(timing.timeout, timing.max_wait):
                if not await node.entries():
                    await node.explain_emptiness()
        write(path or source)
        await show(node, timing, "", 1)

    browse(what, options, visit)
