"""`ocifs find`: print the tags of sources by the kind of artifact that they lead to."""

from __future__ import annotations

import sys
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse
from ocifs.cli.errors import FAILURE, nearest, text_of
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.terminal import CLEAR_LINE, Mark, ProgressBar, is_screen, write
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
    with ProgressBar("tags", show_position=True) as bar:
        finder = _Finder(kinds, bar, problems)
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
    return FAILURE if problems else 0


class _Finder:
    """Prints the matches of several searches with one progress bar, and collects problems."""

    def __init__(self, kinds: tuple[str, ...], bar: ProgressBar, problems: list[str]) -> None:
        self.prefix = ""
        self._kinds = kinds
        self._bar = bar
        self._problems = problems
        self._tags = 0

    async def visit(self, tree: AsyncTree) -> None:
        """Search one source."""
        pacer = Pacer(tree.timing, _notify, tree.status)
        before = self._tags

        def on_progress(done: int, total: int) -> None:
            self._tags = before + total
            self._bar.show(before + done, before + total)

        async with open_search(tree, self._kinds, pacer, on_progress) as results:
            async for result in results:
                path = self._full_path(result.path)
                if isinstance(result, Match):
                    _clear_bar()
                    write(f"{result.kind}\t{path}")
                else:
                    self._problems.append(f"{printable(path)}: {text_of(result.error)}")

    def _full_path(self, path: str) -> str:
        if not self.prefix or path == ".":
            return self.prefix or path
        # The tags of the source itself (`:v1`) follow it without a slash.
        return f"{self.prefix}{'' if path[:1] in (':', '') else '/'}{path}"


def _clear_bar() -> None:
    """Clear the line of the progress bar, which is drawn again below the next line."""
    if is_screen(sys.stderr) and sys.stdout.isatty():
        write(CLEAR_LINE, end="")


def _notify(text: str) -> None:
    """Print a message while the search continues, in place of the progress bar."""
    write(CLEAR_LINE if is_screen(sys.stderr) else Mark(), f"ocifs: {text}", err=True)
