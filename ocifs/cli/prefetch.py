"""`ocifs prefetch`: fetch paths of a source into the cache."""

from __future__ import annotations

from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import JOINED, PATH
from ocifs.cli.progress_line import ProgressLine, resumable, ticking
from ocifs.cli.sources import locate
from ocifs.options import Options
from ocifs.verbs.prefetch import prefetch_paths


@click.command("prefetch", cls=SourceCommand)
@click.argument("source", type=JOINED)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=PATH)
@shared
def command(source: str, paths: tuple[str, ...], **options: Unpack[Options]) -> None:
    """Fetch files into the cache before they are read.

    Fetches everything at and below each PATH of SOURCE. Without a PATH, SOURCE must be a reference
    to one manifest: all of its layers are fetched, and those of an image are unpacked. A later
    mount then needs no network.

    \b
        ocifs prefetch registry.example.com/team/app:v1
        ocifs prefetch registry.example.com/team/app:v1 rootfs/usr/bin layers/0/blob
        ocifs prefetch registry.example.com/team/app:v1/rootfs/usr/bin
    """
    located, inner = locate(source, "", options)
    wanted = [f"{inner}/{path}" if inner else path for path in paths] or [inner] * bool(inner)

    line = ProgressLine()

    async def visit(tree: AsyncTree) -> None:
        async with ticking(line) as progress:
            for path in wanted:
                # Before anything is fetched, a path that does not exist is an error with a hint.
                await find_node(tree, path)
            await prefetch_paths(tree, wanted, progress)

    line.progress.activity = f"reading {source}"
    with resumable(line):
        browse(located, options, visit)
