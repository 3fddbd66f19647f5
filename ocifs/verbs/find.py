"""Find artifacts by their kind: one result for each tag below a source.

Runs in the event loop of an AsyncTree; results are passed on as soon as they are known.

- Only manifests are fetched, no config and no layer, and at the registry's pace (`pacer.py`).
- A manifest that cannot be read is a result (Unreadable), and the search continues.
- A registry that cannot be reached ends the search with its error.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import trio

from ocifs.api import AsyncTree
from ocifs.concurrency import ungrouped
from ocifs.errors import AccessDenied, LimitExceeded, Malformed, NotFound, OcifsError, UsageError
from ocifs.filenames import unmangle
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.node import Directory, Node
from ocifs.tree.registry.single import SingleManifest
from ocifs.verbs.pacer import AT_A_TIME, Pacer
from ocifs.verbs.progress import Progress


@dataclass(frozen=True, slots=True)
class Match:
    """A tag and the kind of artifact that it leads to.

    `path` is relative to the source: `team/app:v1`, or `.` if the source itself is the artifact.
    """

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tag or repository that could not be read."""

    path: str
    error: OcifsError


SearchResult: TypeAlias = Match | Unreadable


@asynccontextmanager
async def open_search(
    tree: AsyncTree,
    kinds: Collection[str] = (),
    pacer: Pacer | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[trio.MemoryReceiveChannel[SearchResult]]:
    """Search while the block lasts; iterate over the channel for the results.

    Without `kinds` all tags are results. Progress is counted in tags. Raises UsageError for an
    unknown kind, and NotFound if the source lists no repository.
    """
    unknown = sorted(set(kinds) - KINDS_BY_NAME.keys())
    if unknown:
        raise UsageError(f"unknown kind: {', '.join(unknown)}")
    # Without a buffer: a caller that stops reading also stops the requests.
    send, receive = trio.open_memory_channel[SearchResult](0)
    pacer = pacer or Pacer(tree.timing, status=tree.status)
    search = _Search(frozenset(kinds), pacer, progress or Progress())
    with receive, ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(search.run, tree.root, send)
            yield receive
            # The caller may have left the block before the last result.
            nursery.cancel_scope.cancel()


async def find_artifacts(tree: AsyncTree, kinds: Collection[str] = ()) -> list[SearchResult]:
    """All results of a search. See `open_search`."""
    async with open_search(tree, kinds) as results:
        return [result async for result in results]
    raise AssertionError("the nursery swallows nothing")


class _Search:
    """One search."""

    def __init__(self, kinds: frozenset[str], pacer: Pacer, progress: Progress) -> None:
        self._kinds = kinds
        self._pacer = pacer
        self._progress = progress
        self._repositories = 0

    async def run(self, root: Directory, results: trio.MemorySendChannel[SearchResult]) -> None:
        """Search to the end, then close `results`."""
        self._progress.growing = True
        self._progress.begin("")
        # Bounded: a registry of a million tags is not listed faster than its tags are identified.
        send, receive = trio.open_memory_channel[tuple[str, Node]](AT_A_TIME)
        # Closed without a checkpoint, at which a cancellation would replace an error.
        with results:
            async with trio.open_nursery() as nursery:
                for _ in range(AT_A_TIME):
                    nursery.start_soon(self._identify_all, receive.clone(), results)
                # The workers end when all clones of the sender are closed.
                receive.close()
                with send:
                    if isinstance(root, ManifestDirectory) and not _lists_tags(root):
                        self._repositories += 1
                        await send.send((".", root))
                    else:
                        async for path, node in self._tagged(root, "", results):
                            await send.send((path, node))
                    self._progress.growing = False
            if not self._repositories:
                raise NotFound(
                    "no repositories are listed", hint="name a repository, or list some with --repo"
                )

    async def _tagged(
        self, directory: Directory, path: str, results: trio.MemorySendChannel[SearchResult]
    ) -> AsyncIterator[tuple[str, Node]]:
        """Each tag below a directory with its manifest's directory, repository by repository."""
        entries = {entry.name: entry.node for entry in await self._pacer.run(directory.entries)}
        listed = b"_tags" in entries
        if not path and not listed:
            # The source may be a repository although no catalog lists it.
            with contextlib.suppress(NotFound):
                entries |= {n: await directory.lookup(n) for n in (b"_tags", b"_manifests")}
        tags, manifests = entries.get(b"_tags"), entries.get(b"_manifests")
        if isinstance(tags, Directory) and isinstance(manifests, Directory):
            names = []
            try:
                names = [entry.name for entry in await self._pacer.run(tags.entries)]
            except (NotFound, AccessDenied) as error:
                # A namespace need not be a repository as well: then it has no tags.
                empty = not any(not name.startswith(b"_") for name in entries)
                if not listed and isinstance(error, AccessDenied) and empty:
                    raise
                if listed:
                    await results.send(Unreadable(path, error))
            self._repositories += listed or bool(names)
            self._progress.expect(len(names))
            for name in names:
                text = f"{path}:{unmangle(name).decode(errors='surrogateescape')}"
                yield text, await self._pacer.run(partial(manifests.lookup, name))
        # The directories of a manifest are not repositories.
        for name, node in () if _lists_tags(directory) else entries.items():
            if not name.startswith(b"_") and isinstance(node, Directory):
                child = name.decode(errors="surrogateescape")
                below = f"{path}/{child}" if path else child
                async for tagged in self._tagged(node, below, results):
                    yield tagged

    async def _identify_all(
        self,
        tagged: trio.MemoryReceiveChannel[tuple[str, Node]],
        results: trio.MemorySendChannel[SearchResult],
    ) -> None:
        with tagged:
            async for path, node in tagged:
                assert isinstance(node, ManifestDirectory)
                try:
                    kind = await self._pacer.run(node.kind)
                except (NotFound, AccessDenied, Malformed, LimitExceeded) as error:
                    await results.send(Unreadable(path, error))
                else:
                    if not self._kinds or kind in self._kinds:
                        await results.send(Match(path, kind))
                self._progress.advance(1)


def _lists_tags(directory: Directory) -> bool:
    """Whether it is the only manifest of a local source, and the root of that source."""
    return isinstance(directory, SingleManifest) and directory.lists_tags
