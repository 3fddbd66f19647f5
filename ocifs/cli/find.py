"""`ocifs find`: print the tags of sources by the kind of artifact that they lead to."""

from __future__ import annotations

from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse
from ocifs.cli.errors import FAILURE, nearest, text_of
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.progress_line import ProgressLine, resumable, ticking
from ocifs.cli.terminal import Mark, write
from ocifs.errors import OcifsError, UsageError
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.options import Options
from ocifs.printable import printable
from ocifs.verbs.find import Match, open_search
from ocifs.verbs.pacer import Pacer


class KindType(click.Choice):  # type: ignore[type-arg]  # not generic in click 8.1
    """A kind of artifact. An error names similar kinds only: there are too many to list."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        if value not in KINDS_BY_NAME:
            hint = nearest(str(value), sorted(KINDS_BY_NAME), 0.4)
            raise UsageError(f"unknown kind: {value}", hint=hint)
        return str(value)


@click.command("find", cls=SourceCommand)
@click.argument("source", type=SOURCE, nargs=-1, required=True)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=KindType(sorted(KINDS_BY_NAME)),
    metavar="KIND",
    help="Print only artifacts of this kind. May be repeated.",
)
@shared
def command(source: tuple[str, ...], kinds: tuple[str, ...], **options: Unpack[Options]) -> int:
    """Find artifacts by kind, in a registry, namespace, repository or layout.

    Prints a line for each tag: the kind, a tab, and the path of the tag in SOURCE. With several
    SOURCEs, the path begins with the source. The manifest of each tag is fetched and cached.

    \b
        ocifs find registry.example.com --kind helm-chart
        ocifs find registry.example.com/team --kind wasm-module --kind wasm-component
    """
    problems: list[str] = []
    progress = ProgressLine("tag")
    progress.progress.activity = f"reading {source[0]}"
    with resumable(progress):
        finder = _Finder(kinds, progress, problems)
        for name in source:
            finder.prefix = name if len(source) > 1 else ""
            try:
                browse(name, options, finder.visit)
            except OcifsError as error:
                # One of several sources that fails does not end the search of the others.
                if len(source) == 1:
                    raise
                problems.append(f"{printable(name)}: {text_of(error)}")
    for line in problems:
        write("ocifs: ", Mark(line), err=True)
    write(progress.summary(), err=True)
    return FAILURE if problems else 0


class _Finder:
    """Prints the matches of several searches above one line, and collects problems."""

    def __init__(self, kinds: tuple[str, ...], line: ProgressLine, problems: list[str]) -> None:
        self.prefix = ""
        self._kinds = kinds
        self._line = line
        self._problems = problems

    async def visit(self, tree: AsyncTree) -> None:
        """Search one source."""
        pacer = Pacer(tree.timing, self._notify, tree.status)
        async with (
            ticking(self._line, summary=False) as progress,
            open_search(tree, self._kinds, pacer, progress) as results,
        ):
            async for result in results:
                path = self._full_path(result.path)
                if isinstance(result, Match):
                    self._line.clear()
                    write(f"{result.kind}\t{path}")
                else:
                    self._problems.append(f"{printable(path)}: {text_of(result.error)}")

    def _notify(self, text: str) -> None:
        """Print a message while the search continues."""
        self._line.clear()
        write(f"ocifs: {text}", err=True)

    def _full_path(self, path: str) -> str:
        if not self.prefix or path == ".":
            return self.prefix or path
        # The tags of the source itself (`:v1`) follow it without a slash.
        return f"{self.prefix}{'' if path[:1] in (':', '') else '/'}{path}"
