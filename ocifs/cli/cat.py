"""`ocifs cat`: write a file of a source to standard output without mounting it."""

from __future__ import annotations

import sys
from typing import Unpack

import click

from ocifs.cli.browse import browse, patiently
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.sources import any_option, below_any
from ocifs.concurrency import in_thread, patience
from ocifs.errors import IsADirectory, UsageError
from ocifs.settings import MIB, Timing
from ocifs.tree.node import Directory, File


@click.command("cat")
@click.argument("source", type=SOURCE)
@click.argument("path", type=PATH, default="")
@any_option
@shared
def command(source: str, path: str, any_host: bool, **options: Unpack[SharedOptions]) -> None:
    """Write the file at PATH of SOURCE to standard output.

    \b
        ocifs cat registry.example.com/team/app:v1 config.json | jq .
    """
    what, path = below_any(source, path, any_host)
    if not path:
        raise UsageError("which file?", hint="ocifs cat SOURCE PATH")

    async def visit(root: Directory, timing: Timing) -> None:
        node = await patiently(timing, root, path)
        if not isinstance(node, File):
            raise IsADirectory(f"{path!r} is a directory")
        offset = 0
        while True:
            with patience(timing.timeout, timing.max_wait):
                piece = await node.read(offset, MIB)
            if not piece:
                break
            offset += len(piece)
            await in_thread(sys.stdout.buffer.write, piece)
        sys.stdout.buffer.flush()

    browse(what, options, visit)
