"""Find artifacts by their kind, or by a path in them: one result for each tag below a source.

Runs in the event loop of an AsyncTree. A result is passed on when it and all before it are known:
repositories are in the order of their names, and tags in natural order.

- Only manifests are fetched, no config and no layer, and at the registry's pace (`pacer.py`). With
  a pattern of paths, the layers of images are read as in a mount.
- A manifest that cannot be read is a result (Unreadable), and the search continues.
- A registry that cannot be reached ends the search with its error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import trio

from ocifs.api import AsyncTree
from ocifs.concurrency import ungrouped
from ocifs.errors import (
    AccessDenied,
    DeadlineExceeded,
    NotFound,
    OcifsError,
    RateLimited,
    Unreachable,
    UsageError,
)
from ocifs.filenames import unmangle
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.kinds.kind import matches_any
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.oci.local import LayoutSource
from ocifs.oci.mediatype import essence
from ocifs.oci.reference import Source
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.node import Directory, Node
from ocifs.tree.registry.single import SingleManifest
from ocifs.verbs.pacer import AT_A_TIME, Pacer
from ocifs.verbs.paths import PathPattern, matching_paths, parse_pattern
from ocifs.verbs.progress import Progress
from ocifs.verbs.tags import natural_key


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search for artifacts of one of these kinds, or for all without `kinds`.

    With `artifact_type`, only artifacts whose type matches this pattern, in which `*` is any text.
    With `pattern`, only images with a path in their root filesystem that matches it.
    """

    kinds: Collection[str] = ()
    pattern: PathPattern | None = None
    artifact_type: str = ""

    def selects(self, found: Classification) -> bool:
        """Whether an artifact of this kind and type is a result."""
        if self.kinds and not any(found.is_kind(kind) for kind in self.kinds):
            return False
        wanted = self.artifact_type
        return not wanted or matches_any((essence(wanted),), found.artifact_type)


@dataclass(frozen=True, slots=True)
class Match:
    """A tag and the kind of artifact that it leads to.

    `path` is relative to the source: `team/app:v1`, or `.` if the source itself is the artifact.
    `reference` is complete: `registry.example.com/team/app:v1`. `files` are the paths that match
    the pattern of the search, such as `rootfs/etc/passwd`.
    """

    path: str
    kind: str
    reference: str = ""
    files: tuple[str, ...] = ()
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tag or repository that could not be read."""

    path: str
    error: OcifsError
    reference: str = ""


SearchResult: TypeAlias = Match | Unreadable


@asynccontextmanager
async def open_search(
    tree: AsyncTree,
    query: SearchQuery = SearchQuery(),
    pacer: Pacer | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[trio.MemoryReceiveChannel[SearchResult]]:
    """Search while the block lasts; iterate over the channel for the results, which are in order.

    Progress is counted in tags. Raises UsageError for an unknown kind, and NotFound if the source
    lists no repository.
    """
    own = {kind.name for kind in tree.settings.view.kinds}
    unknown = sorted(set(query.kinds) - KINDS_BY_NAME.keys() - own)
    if unknown:
        raise UsageError(f"unknown kind: {', '.join(unknown)}")
    # Without a buffer: a caller that stops reading also stops the requests.
    send, receive = trio.open_memory_channel[SearchResult](0)
    pacer = pacer or Pacer(tree.timing, status=tree.status)
    search = _Search(tree.source, query, pacer, progress or Progress(), send)
    with receive, ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(search.run, tree.root)
            yield receive
            # The caller may have left the block before the last result.
            nursery.cancel_scope.cancel()


async def find_artifacts(
    tree: AsyncTree, kinds: Collection[str] = (), path: str = ""
) -> list[SearchResult]:
    """All results of a search: with `path`, of images that have a path of this pattern.

    See `open_search`, and `ocifs.verbs.paths` for patterns.
    """
    query = SearchQuery(kinds, parse_pattern(path) if path else None)
    async with open_search(tree, query) as results:
        return [result async for result in results]
    raise AssertionError("the nursery swallows nothing")


@dataclass(slots=True)
class _Found:
    """A tag or a repository, in the order of the results.

    `node` is the directory of a manifest, or the error of a repository. `previous` is set when all
    results before this one were sent, and `sent` when this one was.
    """

    path: str
    node: Node | OcifsError
    previous: trio.Event
    sent: trio.Event = field(default_factory=trio.Event)


class _Search:
    """One search. Several tags are identified at a time, and the results are sent in order."""

    def __init__(
        self,
        source: Source,
        query: SearchQuery,
        pacer: Pacer,
        progress: Progress,
        results: trio.MemorySendChannel[SearchResult],
    ) -> None:
        self._source = source
        self._query = query
        self._pacer = pacer
        self._progress = progress
        self._results = results
        self._repositories = 0

    async def run(self, root: Directory) -> None:
        """Search to the end, then close the channel of the results."""
        self._progress.growing = True
        self._progress.begin("")
        # Bounded: a registry of a million tags is not listed faster than its tags are identified.
        send, receive = trio.open_memory_channel[_Found](AT_A_TIME)
        # Closed without a checkpoint, at which a cancellation would replace an error.
        with self._results:
            async with trio.open_nursery() as nursery:
                for _ in range(AT_A_TIME):
                    nursery.start_soon(self._identify_all, receive.clone())
                # The workers end when all clones of the sender are closed.
                receive.close()
                previous = trio.Event()
                previous.set()
                with send:
                    async for path, node in self._all(root):
                        found = _Found(path, node, previous)
                        previous = found.sent
                        await send.send(found)
                    self._progress.growing = False
            if not self._repositories:
                raise NotFound(
                    "no repositories are listed", hint="name a repository, or list some with --repo"
                )

    async def _all(self, root: Directory) -> AsyncIterator[tuple[str, Node | OcifsError]]:
        if isinstance(root, ManifestDirectory) and not _lists_tags(root):
            self._repositories += 1
            yield ".", root
            return
        async for path, node in self._tagged(root, ""):
            yield path, node

    async def _tagged(
        self, directory: Directory, path: str
    ) -> AsyncIterator[tuple[str, Node | OcifsError]]:
        """Each tag below a directory with its manifest's directory, repository by repository.

        Repositories are in the order of their names, and tags in natural order.
        """
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
                    yield path, error
            self._repositories += listed or bool(names)
            self._progress.expect(len(names))
            by_tag = {os.fsdecode(unmangle(name)): name for name in names}
            for tag in sorted(by_tag, key=natural_key):
                yield f"{path}:{tag}", await self._pacer.run(partial(manifests.lookup, by_tag[tag]))
        # The directories of a manifest are not repositories.
        for name, node in () if _lists_tags(directory) else sorted(entries.items(), key=_name):
            if not name.startswith(b"_") and isinstance(node, Directory):
                child = name.decode(errors="surrogateescape")
                below = f"{path}/{child}" if path else child
                async for tagged in self._tagged(node, below):
                    yield tagged

    async def _identify_all(self, tagged: trio.MemoryReceiveChannel[_Found]) -> None:
        with tagged:
            async for found in tagged:
                result = await self._result(found)
                await found.previous.wait()
                if result is not None:
                    await self._results.send(result)
                found.sent.set()
                if not isinstance(found.node, OcifsError):
                    self._progress.advance(1)

    async def _result(self, found: _Found) -> SearchResult | None:
        """The result for a tag or a repository, or None if it does not match."""
        reference, node = full_reference(self._source, found.path), found.node
        if isinstance(node, OcifsError):
            return Unreadable(found.path, node, reference)
        assert isinstance(node, ManifestDirectory)
        files: list[str] = []
        try:
            classification = await self._pacer.run(node.classification)
            if not self._query.selects(classification):
                return None
            if self._query.pattern is not None:
                pattern = self._query.pattern
                files = await matching_paths(node, "rootfs", pattern, self._pacer.run)
        except (Unreachable, DeadlineExceeded, RateLimited):
            raise
        except OcifsError as error:
            return Unreadable(found.path, error, reference)
        if self._query.pattern is not None and not files:
            return None
        kind, artifact_type = classification.kind, classification.artifact_type
        return Match(found.path, kind, reference, tuple(files), artifact_type)


def full_reference(source: Source, path: str) -> str:
    """The complete reference for a path below a source, as in `Match`."""
    if path in ("", "."):
        return str(source)
    if isinstance(source, LayoutSource):
        return str(replace(source, ref=path.removeprefix(":")))
    # The tags of the source itself (`:v1`) follow it without a slash.
    return f"{source}{'' if path.startswith(':') else '/'}{path}"


def _name(item: tuple[bytes, Node]) -> bytes:
    return item[0]


def _lists_tags(directory: Directory) -> bool:
    """Whether it is the only manifest of a local source, and the root of that source."""
    return isinstance(directory, SingleManifest) and directory.lists_tags
