"""`ocifs tags`: list the tags of a repository."""

from __future__ import annotations

import json
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse
from ocifs.cli.errors import FAILURE, text_of
from ocifs.cli.ls_rows import human_size, minute, rfc3339
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import SOURCE, json_option
from ocifs.cli.sources import locate
from ocifs.cli.terminal import Mark, write, write_lines
from ocifs.errors import UsageError
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import Source
from ocifs.options import Options
from ocifs.printable import printable
from ocifs.verbs.pacer import Pacer
from ocifs.verbs.tags import Tag, describe_tags, list_tags


@click.command("tags", cls=SourceCommand)
@click.argument("repository", type=SOURCE)
@click.option("-l", "long", is_flag=True, help="Show kind, creation time, size and digest.")
@json_option
@shared
def command(repository: str, long: bool, as_json: bool, **options: Unpack[Options]) -> int:
    """List the tags of a repository, in natural order: 1.9 before 1.10.

    The size is that of the config and the layers, as they are transferred. Of an index, the size is
    that of the image for the platform. Without -l, one request lists all tags.

    \b
        ocifs tags registry.example.com/team/app
        ocifs tags -l registry.example.com/team/app
        ocifs tags oci:./layout
    """
    source, path = locate(repository, "", options)
    if path.strip("/") not in ("", "_tags"):
        raise UsageError(f"not a repository: {repository}", hint=f"ocifs tags {source}")
    listing = _Listing(source, as_json)

    async def visit(tree: AsyncTree) -> None:
        pacer = Pacer(tree.timing, lambda text: write(f"ocifs: {text}", err=True), tree.status)
        names = await list_tags(tree, pacer)
        try:
            if long:
                listing.begin(names)
                await describe_tags(tree, names, listing.show, pacer)
            else:
                for name in names:
                    listing.show(Tag(name))
        finally:
            listing.end()

    browse(source, options, visit)
    return FAILURE if listing.problems else 0


class _Listing:
    """Prints tags as they come, and problems at the end. JSON is printed at the end."""

    def __init__(self, source: Source, as_json: bool) -> None:
        self._source = source
        self._objects: list[dict[str, object]] | None = [] if as_json else None
        self._width = 0
        self.problems: list[str] = []

    def begin(self, names: list[str]) -> None:
        """Print the head of a table for these tags."""
        self._width = max([len(printable(name)) for name in names], default=0)
        self._width = max(self._width, len("TAG"))
        if self._objects is None:
            self._line("TAG", "KIND", "CREATED", "SIZE", "DIGEST")

    def show(self, tag: Tag) -> None:
        """Print or collect one tag."""
        if tag.error is not None:
            self.problems.append(f"{printable(self._reference(tag.name))}: {text_of(tag.error)}")
        if self._objects is not None:
            self._objects.append(self._as_json(tag))
        elif self._width:
            details = tag.details
            if details is None:
                self._line(tag.name, "-", "-", "-", "-")
                return
            created = minute(details.created_ns) if details.created_ns else "-"
            size = human_size(details.size)
            self._line(tag.name, details.kind, created, size, str(details.digest))
        else:
            write(tag.name)

    def end(self) -> None:
        """Print collected objects, and problems."""
        if self._objects is not None:
            write_lines(json.dumps(self._objects, indent=2))
        for line in self.problems:
            write("ocifs: ", Mark(line), err=True)

    def _line(self, tag: str, kind: str, created: str, size: str, digest: str) -> None:
        write(f"{tag:<{self._width}}  {kind:<18}  {created:<16}  {size:>6}  {digest}")

    def _reference(self, tag: str) -> str:
        if isinstance(self._source, LayoutSource):
            return str(LayoutSource(self._source.path, self._source.transport, tag))
        return f"{self._source}:{tag}"

    def _as_json(self, tag: Tag) -> dict[str, object]:
        """A tag for programs: the schema is in docs/reference/cli.md."""
        details = tag.details
        created = details.created_ns if details else 0
        return {
            "tag": tag.name,
            "reference": self._reference(tag.name),
            "kind": details.kind if details else None,
            "created": rfc3339(created) if created else None,
            "size": details.size if details else None,
            "digest": str(details.digest) if details else None,
            "error": str(tag.error) if tag.error else None,
        }
