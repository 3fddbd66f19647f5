"""`ocifs inspect`: print a manifest's kind and how it was determined."""

from __future__ import annotations

import json
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.errors import text_of
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import JOINED, json_option
from ocifs.cli.sources import locate
from ocifs.cli.terminal import Mark, write, write_lines
from ocifs.options import Options
from ocifs.verbs.inspect import inspect_manifest


@click.command("inspect", cls=SourceCommand)
@click.argument("reference", type=JOINED)
@json_option
@click.option(
    "--tags",
    "list_tags",
    is_flag=True,
    help="List the tags of the repository (one request more).",
)
@shared
def command(reference: str, as_json: bool, list_tags: bool, **options: Unpack[Options]) -> None:
    """Show a manifest's kind and how it was determined.

    Also shows its layers, files and referrers.

    \b
        ocifs inspect registry.example.com/charts/app:1.2.0
        ocifs inspect --json oci:./layout:1.0 | jq .kind
    """
    located, path = locate(reference, "", options)

    async def visit(tree: AsyncTree) -> None:
        # A path that does not exist gets a hint.
        await find_node(tree, path)
        inspection = await inspect_manifest(tree, path, list_tags=list_tags)
        if inspection.referrers_error is not None:
            failure = (
                "cannot list all referrers" if inspection.referrers else "cannot list referrers"
            )
            text = text_of(inspection.referrers_error)
            write(f"ocifs: {failure}: ", Mark(text), err=True)
        if as_json:
            write_lines(json.dumps(inspection.as_dict(), indent=2))
        else:
            write_lines(inspection.summary().rstrip("\n"))

    browse(located, options, visit)
