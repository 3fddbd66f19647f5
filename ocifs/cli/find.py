"""`ocifs find`: the tags of a source by what they are.

Rules that hold here: a line is written when it is known; manifests are asked for at the registry's
pace, and nothing but manifests; a registry that says "too often" is waited for (`pace.py`), one
that cannot be reached ends the search with its error; one odd manifest does not, but is told and
makes the exit status 1.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Unpack

import click
import trio

from ocifs.app import Facts
from ocifs.cli.browse import browse
from ocifs.cli.errors import FAILURE, nearest, text_of
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.terminal import CLEAR_LINE, Mark, is_screen, write
from ocifs.cli.throttle import AT_A_TIME, Pace
from ocifs.concurrency import ungrouped
from ocifs.errors import AccessDenied, LimitExceeded, Malformed, NotFound, OcifsError, UsageError
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.printable import printable
from ocifs.settings import Timing
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.names import unmangle
from ocifs.tree.node import Directory, Node
from ocifs.tree.registry.single import SingleManifest


class Bar(Protocol):
    """What is used of click's progress bar."""

    length: int | None

    def update(self, n_steps: int) -> None: ...


@dataclass
class Search:
    """One search: for what, how it is shown, what it came upon."""

    kinds: frozenset[str]
    pace: Pace
    show: Callable[[str], None]
    bar: Bar | None = None
    repositories: int = 0
    tags: int = 0
    odd: list[str] = field(default_factory=list)
    source: str = ""

    def place(self, path: str) -> str:
        """A path in the source, and with it which source that is where there are several."""
        if not self.source:
            return path
        return (
            self.source
            if path == "."
            else f"{self.source}{'' if path[:1] in (':', '') else '/'}{path}"
        )


class Kind(click.Choice):  # type: ignore[type-arg]  # click 8.1 has no arguments there
    """A kind of artifact; there are more of them than anybody wants to read in an error."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        if value not in KINDS_BY_NAME:
            raise UsageError(
                f"there is no kind {value}", hint=nearest(str(value), sorted(KINDS_BY_NAME), 0.4)
            )
        return str(value)


@click.command("find")
@click.argument("source", type=SOURCE, nargs=-1, required=True)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=Kind(sorted(KINDS_BY_NAME)),
    metavar="KIND",
    help="Only these; repeatable.",
)
@shared
def command(
    source: tuple[str, ...], kinds: tuple[str, ...], **options: Unpack[SharedOptions]
) -> int:
    """Find the tags of SOURCE (a registry, a namespace, a repository or a layout) by the kind of
    artifact that they lead to.

    Each line has the kind, a tab, and the path of the tag in SOURCE; of several, the source before
    it. A manifest is fetched for each tag, and kept.

    \b
        ocifs find registry.example.com --kind helm-chart
        ocifs find registry.example.com/team --kind wasm-module --kind wasm-component
    """
    terminal = is_screen(sys.stderr)

    def show(line: str) -> None:
        if terminal and sys.stdout.isatty():
            write(CLEAR_LINE, end="")  # the bar stands on this line, and is drawn again below
        write(line)

    odd: list[str] = []
    with _bar(terminal) as bar:
        for each in source:
            facts: Facts = {}
            search = Search(frozenset(kinds), Pace(Timing(), _tell(terminal), facts), show, bar)
            search.source = each if len(source) > 1 else ""

            async def visit(root: Directory, timing: Timing, search: Search = search) -> None:
                search.pace.timing = timing
                await _search(root, search)

            try:
                browse(each, options, visit, facts)
            except OcifsError as error:
                if len(source) == 1:
                    raise
                odd.append(f"{printable(each)}: {text_of(error)}")
            odd += map(search.place, search.odd)
    for line in odd:
        write("ocifs: ", Mark(line), err=True)
    return FAILURE if odd else 0


def _tell(terminal: bool) -> Callable[[str], None]:
    """How a person is told something while the search goes on."""
    start = CLEAR_LINE if terminal else Mark()  # over the bar
    return lambda text: write(start, f"ocifs: {text}", err=True)


def _bar(terminal: bool) -> AbstractContextManager[Bar | None]:
    if not terminal:
        return contextlib.nullcontext()
    return click.progressbar(length=0, label="tags", show_pos=True, file=sys.stderr)


async def _search(root: Directory, search: Search) -> None:
    send, receive = trio.open_memory_channel[tuple[str, Node]](AT_A_TIME)
    with ungrouped():
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(_identify, receive.clone(), search)
            receive.close()
            async with send:
                if isinstance(root, ManifestDirectory) and not _lists_tags(root):
                    search.repositories += 1
                    await send.send((".", root))
                    return
                async for path, node in _tags(root, "", search):
                    await send.send((path, node))
    if not search.repositories:
        raise NotFound(
            "no repository is listed here", hint="name a repository, or give some with --repo"
        )


def _lists_tags(directory: Directory) -> bool:
    """Whether it is the only manifest of a local source, which stands for the source."""
    return isinstance(directory, SingleManifest) and directory.lists_tags


async def _tags(directory: Directory, path: str, search: Search) -> AsyncIterator[tuple[str, Node]]:
    """Each tag below a directory, with its manifest's directory, repository by repository."""
    entries = {entry.name: entry.node for entry in await search.pace.run(directory.entries)}
    listed = b"_tags" in entries
    if not path and not listed:  # what was named may be a repository though no catalog lists it
        with contextlib.suppress(NotFound):
            entries |= {name: await directory.lookup(name) for name in (b"_tags", b"_manifests")}
    tags, manifests = entries.get(b"_tags"), entries.get(b"_manifests")
    if isinstance(tags, Directory) and isinstance(manifests, Directory):
        names = []
        try:
            names = [entry.name for entry in await search.pace.run(tags.entries)]
        except (NotFound, AccessDenied) as error:
            if (
                not listed
                and isinstance(error, AccessDenied)
                and not any(not name.startswith(b"_") for name in entries)
            ):
                raise
            if listed:
                search.odd.append(f"{printable(path)}: {text_of(error)}")
        search.repositories += listed or bool(names)
        search.tags += len(names)
        if search.bar is not None:
            search.bar.length = search.tags
        for name in names:
            text = f"{path}:{unmangle(name).decode(errors='surrogateescape')}"
            yield text, await search.pace.run(partial(manifests.lookup, name))
    for name, node in () if _lists_tags(directory) else entries.items():
        if not name.startswith(b"_") and isinstance(node, Directory):
            below = name.decode(errors="surrogateescape")
            async for found in _tags(node, f"{path}/{below}" if path else below, search):
                yield found


async def _identify(todo: trio.MemoryReceiveChannel[tuple[str, Node]], search: Search) -> None:
    async with todo:
        async for path, node in todo:
            assert isinstance(node, ManifestDirectory)
            try:
                kind = await search.pace.run(node.kind)
            except (NotFound, AccessDenied, Malformed, LimitExceeded) as error:
                search.odd.append(f"{printable(path)}: {text_of(error)}")
            else:
                if not search.kinds or kind in search.kinds:
                    search.show(f"{kind}\t{search.place(path)}")
            if search.bar is not None:
                search.bar.update(1)
