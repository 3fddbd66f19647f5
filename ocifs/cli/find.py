"""`ocifs find`: print the tags of sources by kind or content of their artifacts."""

from __future__ import annotations

import json
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse
from ocifs.cli.errors import FAILURE, nearest, text_of
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import SOURCE, json_option
from ocifs.cli.progress_line import ProgressLine, resumable, ticking
from ocifs.cli.sources import locate
from ocifs.cli.terminal import Mark, write, write_lines
from ocifs.errors import OcifsError, UsageError
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.options import Options
from ocifs.printable import printable
from ocifs.verbs.find import SearchQuery, Unreadable, open_search
from ocifs.verbs.pacer import Pacer
from ocifs.verbs.paths import parse_pattern


class KindType(click.Choice):  # type: ignore[type-arg]  # not generic in click 8.1
    """A kind of artifact. An error names similar kinds only: there are too many to list."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        # The configuration file may declare further kinds (docs/how-to/own-kinds.md).
        declared = (ctx.lookup_default("own_kinds") if ctx is not None else None) or ()
        known = sorted({*KINDS_BY_NAME, *(kind.name for kind in declared)})
        if value not in known:
            hint = nearest(str(value), known, 0.4)
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
@click.option(
    "--artifact-type",
    metavar="PATTERN",
    default="",
    help="Print only artifacts of this type; `*` is any text: application/vnd.acme.*",
)
@click.option(
    "--path",
    "pattern",
    metavar="GLOB",
    help="Print only images that contain this path: /opt/x, etc/*.conf, **/libssl*.",
)
@json_option
@shared
def command(
    source: tuple[str, ...],
    kinds: tuple[str, ...],
    artifact_type: str,
    pattern: str | None,
    as_json: bool,
    **options: Unpack[Options],
) -> int:
    """Find artifacts by kind or content, in a registry, namespace, repository or layout.

    Prints a line for each tag: the kind, a tab, and the reference. The manifest of each tag is
    fetched and cached. With --path, a line for each path, which follows the reference after another
    tab; the layers of images are fetched unless they are indexed already.

    \b
        ocifs find registry.example.com --kind helm-chart
        ocifs find registry.example.com/team --kind wasm-module --kind wasm-component
        ocifs find registry.example.com --artifact-type "application/vnd.acme.*"
        ocifs find registry.example.com/team/app --path /opt/x
    """
    parsed = parse_pattern(pattern) if pattern is not None else None
    query = SearchQuery(kinds, parsed, artifact_type)
    progress = ProgressLine("tag")
    progress.progress.activity = f"reading {source[0]}"
    with resumable(progress):
        finder = _Finder(query, progress, as_json)
        for name in source:
            try:
                located, path = locate(name, "", options)
                if path.strip("/") not in ("", "_tags"):
                    raise UsageError(f"cannot search a path: {name}", hint=f"search {located}")
                browse(located, options, finder.visit)
            except OcifsError as error:
                # One of several sources that fails does not end the search of the others.
                if len(source) == 1:
                    raise
                finder.add_problem(name, error)
    if as_json:
        write_lines(json.dumps(finder.objects, indent=2))
    for line in finder.problems:
        write("ocifs: ", Mark(line), err=True)
    write(progress.summary(), err=True)
    return FAILURE if finder.problems else 0


class _Finder:
    """Prints the matches of several searches above one line, and collects problems.

    With `as_json`, the matches are collected as `objects`.
    """

    def __init__(self, query: SearchQuery, line: ProgressLine, as_json: bool) -> None:
        self._query = query
        self._line = line
        self._as_json = as_json
        self.problems: list[str] = []
        self.objects: list[dict[str, object]] = []

    async def visit(self, tree: AsyncTree) -> None:
        """Search one source."""
        pacer = Pacer(tree.timing, self._notify, tree.status)
        async with (
            ticking(self._line, summary=False) as progress,
            open_search(tree, self._query, pacer, progress) as results,
        ):
            async for result in results:
                if isinstance(result, Unreadable):
                    self.add_problem(result.reference, result.error)
                elif self._as_json:
                    files = list(result.files) if self._query.pattern else None
                    self.objects.append(
                        {
                            "kind": result.kind,
                            "artifact_type": result.artifact_type,
                            "reference": result.reference,
                            "paths": files,
                        }
                    )
                else:
                    self._line.clear()
                    for file in result.files or ("",):
                        write(f"{result.kind}\t{result.reference}{chr(9) if file else ''}{file}")

    def add_problem(self, reference: str, error: OcifsError) -> None:
        """Add a tag or repository that could not be searched."""
        self.problems.append(f"{printable(reference)}: {text_of(error)}")

    def _notify(self, text: str) -> None:
        """Print a message while the search continues."""
        self._line.clear()
        write(f"ocifs: {text}", err=True)
