"""`ocifs ls`: list a path of a source without a mount."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, Unpack

import click
import trio

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse, find_node
from ocifs.cli.errors import FAILURE, fail
from ocifs.cli.ls_rows import Row, Style, as_json, dots, headed, row_of
from ocifs.cli.options import SourceCommand, shared
from ocifs.cli.param_types import JOINED, PATH, json_option
from ocifs.cli.sources import any_option, locate
from ocifs.cli.terminal import write, write_lines
from ocifs.concurrency import ungrouped
from ocifs.errors import Malformed, NotFound, OcifsError
from ocifs.options import Options
from ocifs.tree.base import SymlinkNode
from ocifs.tree.node import Directory, DirectoryEntry, Node, partial_entries
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk
from ocifs.verbs.pacer import AT_A_TIME, Pacer

# Links to manifests: by tag, or by digest from a sibling.
_MANIFEST = re.compile(rb"_manifests/[^/]+\Z|(?:\A|\.\./)[a-z0-9]+:[0-9a-f]+\Z")

_Show: TypeAlias = Callable[[Sequence[Row], str], None]
"""Called with rows in order, and the path of their directory."""


@click.command("ls", cls=SourceCommand, context_settings={"help_option_names": ["--help"]})
@click.argument("source", type=JOINED)
@click.argument("path", default="", type=PATH)
@click.option(
    "-l", "long", is_flag=True, help="Show type, size, time, kind of artifact and link target."
)
@click.option("--type", "types", is_flag=True, help="With -l, also show the types of artifacts.")
@click.option("-h", "human", is_flag=True, help="With -l, show sizes such as 1.5K and 20M.")
@click.option("-a", "hidden", flag_value="a", default="", help="Show names that begin with a dot.")
@click.option("-A", "hidden", flag_value="A", help="The same, without `.` and `..`.")
@click.option("-t", "sort", flag_value="time", help="Sort by time, newest first.")
@click.option("-S", "sort", flag_value="size", help="Sort by size, largest first.")
@click.option("-r", "reverse", is_flag=True, help="Reverse the order.")
@click.option("-R", "recursive", is_flag=True, help="List directories below as well.")
@click.option("-1", "one", is_flag=True, expose_value=False, help="One name a line (the default).")
@json_option
@any_option
@shared
def command(  # noqa: PLR0913 (one for each option)
    source: str,
    path: str,
    any_host: bool,
    as_json: bool,
    recursive: bool,
    *,
    long: bool,
    types: bool,
    human: bool,
    hidden: str,
    sort: str | None,
    reverse: bool,
    **options: Unpack[Options],
) -> int:
    """List a path of a source without mounting it.

    The output is that of `ls` in a mount of SOURCE. A source and a path can be one word.

    \b
        ocifs ls registry.example.com/team/app _tags
        ocifs ls -l oci:./layout _manifests/1.0
        ocifs ls -lh registry.example.com/team/app:v1/rootfs/usr/lib
    """
    located, path = locate(source, path, options, any_host=any_host)
    # Programs select names themselves.
    hidden = (hidden or "A") if as_json else hidden
    listing = _Listing(Style(long, human, hidden, sort or "name", reverse, types), path, as_json)
    browse(located, options, partial(listing.visit, recursive=recursive))
    return FAILURE if listing.failed else 0


class _Listing:
    """One run of the command. `failed` is whether a directory below the path could not be listed.

    With `as_json`, rows are collected and printed at the end.
    """

    def __init__(self, style: Style, path: str, as_json: bool) -> None:
        self._style = style
        self._path = path.strip("/")
        self._objects: list[dict[str, object]] | None = [] if as_json else None
        self.failed = False

    async def visit(self, tree: AsyncTree, *, recursive: bool) -> None:
        """List the path, and with `recursive` the directories below it."""
        node = await find_node(tree, self._path)
        pacer = Pacer(tree.timing, lambda text: write(f"ocifs: {text}", err=True), tree.status)
        try:
            if not isinstance(node, Directory):
                parent, _, name = self._path.rpartition("/")
                row = row_of(DirectoryEntry(os.fsencode(name), node))
                self._show([row], parent)
            elif recursive:
                await self._below(tree, pacer, node)
            else:
                await self._directory(tree, pacer, node)
        finally:
            if self._objects is not None:
                write_lines(json.dumps(self._objects, indent=2))

    async def _directory(self, tree: AsyncTree, pacer: Pacer, node: Directory) -> None:
        try:
            entries = await pacer.run(node.entries)
        except OcifsError as error:
            # The names that were received before the error, as in a mount.
            received = self._style.selected(partial_entries(error))
            self._show(self._style.ordered(map(row_of, received)), self._path)
            raise
        if not entries and isinstance(node, RepositoryDirectory):
            await pacer.run(node.explain_emptiness)
        await self._rows(_Requests(pacer, tree.root, self._path), node, entries, self._show)

    async def _below(self, tree: AsyncTree, pacer: Pacer, top: Directory) -> None:
        """List a directory and those below it, without following links."""
        pending: list[tuple[str, Directory]] = [(self._path, top)]
        first = True
        while pending:
            path, directory = pending.pop()
            entries: Sequence[DirectoryEntry] = ()
            try:
                entries = await pacer.run(directory.entries)
            except OcifsError as error:
                if directory is top:
                    raise
                entries = partial_entries(error)
                fail(error)
                self.failed = True
            rows: list[Row] = []
            requests = _Requests(pacer, tree.root, path)
            await self._rows(requests, directory, entries, partial(_collect, rows))
            if self._objects is None:
                headed(path, rows, self._style, first=first)
            else:
                self._show(rows, path)
            first = False
            pending += [
                (f"{path}/{row.name}".strip("/"), row.entry.node)
                for row in reversed(rows)
                if isinstance(row.entry.node, Directory) and row.name not in (".", "..")
            ]

    async def _rows(
        self,
        requests: _Requests,
        directory: Directory,
        entries: Sequence[DirectoryEntry],
        show: _Show,
    ) -> None:
        """Pass rows on in order, each as soon as it and all rows before it are known."""
        style = self._style
        selected = style.selected(entries)
        if style.hidden == "a":
            selected += dots(directory)
        by_name = sorted(selected, key=lambda entry: entry.name, reverse=style.reverse)
        if style.sort == "name" and not style.long:
            show([row_of(entry) for entry in by_name], requests.path)
        elif style.sort == "name":
            await requests.in_order(by_name, lambda row: show([row], requests.path))
        else:
            rows: list[Row] = []
            await requests.in_order(by_name, rows.append, load=style.sort == "time")
            show(style.ordered(rows), requests.path)

    def _show(self, rows: Sequence[Row], parent: str) -> None:
        for row in rows:
            if self._objects is None:
                self._style.show(row)
            else:
                self._objects.append(as_json(row, parent))


def _collect(collected: list[Row], rows: Sequence[Row], _: str) -> None:
    """Add the rows of one directory, instead of showing them."""
    collected += rows


@dataclass(frozen=True, slots=True)
class _Requests:
    """The requests about the entries of the directory at `path`, at the pace of the registry."""

    pacer: Pacer
    root: Directory
    path: str

    async def in_order(
        self,
        entries: Sequence[DirectoryEntry],
        on_row: Callable[[Row], None],
        *,
        load: bool = False,
    ) -> None:
        """Call `on_row` for each entry in order. A few kinds are requested at a time.

        With `load`, the time of a link to a manifest is that of the manifest.
        """
        rows: list[Row | None] = [None] * len(entries)
        shown = 0
        # Shared by the workers, so that each entry is requested once.
        numbers = iter(range(len(entries)))

        async def work() -> None:
            nonlocal shown
            for number in numbers:
                rows[number] = await self._row(entries[number], load)
                # Nothing is awaited in this loop, so two workers never pass on the same row.
                while shown < len(entries) and (row := rows[shown]) is not None:
                    on_row(row)
                    shown += 1

        with ungrouped():
            async with trio.open_nursery() as nursery:
                for _ in range(AT_A_TIME):
                    nursery.start_soon(work)

    async def _row(self, entry: DirectoryEntry, load: bool) -> Row:
        """The row of an entry.

        The kind is empty if the entry leads to something else than a manifest, or to a manifest
        that does not exist.
        """
        # Imported here: a plain listing does not need the modules about manifests.
        from ocifs.tree.manifest.directory import ManifestDirectory

        node: Node = entry.node
        # The attributes of a listed entry may be provisional, and -l prints them.
        if not node.attributes_known:
            await node.restore_attributes()
        if isinstance(node, SymlinkNode) and _MANIFEST.search(node.target):
            path = os.fsencode(self.path) + b"/" + entry.name
            try:
                node = await self.pacer.run(partial(walk, self.root, path))
            except NotFound:
                return row_of(entry)
        if not isinstance(node, ManifestDirectory) or entry.name in (b".", b".."):
            return row_of(entry)
        try:
            if load:
                loaded = await self.pacer.run(node.load)
                return row_of(entry, loaded.classification, loaded.mtime_ns)
            return row_of(entry, await self.pacer.run(node.classification))
        except (NotFound, Malformed):
            return row_of(entry)
