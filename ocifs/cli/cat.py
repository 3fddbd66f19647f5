"""`ocifs cat`: write a file of a source to standard output without a mount."""

from __future__ import annotations

import sys
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.sources import any_option, below_any
from ocifs.concurrency import in_thread
from ocifs.errors import IsADirectory, UsageError
from ocifs.options import Options
from ocifs.settings import MIB
from ocifs.tree.node import File


@click.command("cat", cls=SourceCommand)
@click.argument("source", type=SOURCE)
@click.argument("path", type=PATH, default="")
@any_option
@shared
def command(source: str, path: str, any_host: bool, **options: Unpack[Options]) -> None:
    """Write a file of a source to standard output.

    \b
        ocifs cat registry.example.com/team/app:v1 config.json | jq .
    """
    named, path = below_any(source, path, any_host)
    if not path:
        raise UsageError("missing argument PATH", hint="ocifs cat SOURCE PATH")

    async def visit(tree: AsyncTree) -> None:
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

    browse(named, options, visit)
