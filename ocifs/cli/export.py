"""`ocifs export`: write an image or artifact as an OCI image layout."""

from __future__ import annotations

from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import JOINED
from ocifs.cli.progress_line import ProgressLine, resumable, ticking
from ocifs.cli.sources import locate
from ocifs.cli.terminal import write
from ocifs.options import Options
from ocifs.verbs.export import export_image, parse_destination


@click.command("export", cls=SourceCommand)
@click.argument("reference", type=JOINED)
@click.argument("destination")
@shared
def command(reference: str, destination: str, **options: Unpack[Options]) -> None:
    """Export an image or artifact as an OCI image layout.

    DESTINATION is oci:DIR[:TAG]. Everything that REFERENCE refers to is written and verified: an
    index with all of its children, or with --platform only the child for that platform. Content
    that DIR contains already is not fetched again. Prints the digest of the exported manifest.

    \b
        ocifs export registry.example.com/team/app:v1 oci:./app
        ocifs export --platform linux/arm64 registry.example.com/team/app:v1 oci:./app:v1-arm64
    """
    # Before the source is opened, which may take long.
    parse_destination(destination)
    located, path = locate(reference, "", options)

    line = ProgressLine()

    async def visit(tree: AsyncTree) -> None:
        # A path that does not exist gets a hint.
        await find_node(tree, path)
        async with ticking(line) as progress:
            digest = await export_image(tree, destination, path, progress)
        write(str(digest))

    line.progress.activity = f"reading {reference}"
    with resumable(line):
        browse(located, options, visit)
