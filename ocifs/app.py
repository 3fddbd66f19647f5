"""The composition root: the only module that joins what users see with where bytes come from.

Rules that hold here: no decision of its own, only assembly; whatever lives as long as a mount belongs to the one nursery opened here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ocifs.content import Origin
from ocifs.layout.layout import Layout
from ocifs.oci.reference import LayoutSource, Reference, Source
from ocifs.settings import Settings
from ocifs.tree.context import Context
from ocifs.tree.node import Directory
from ocifs.tree.registry import RepositoryDirectory
from ocifs.tree.single import open_single


def host_of(source: Source) -> str:
    """The host that a source is on; empty for a layout."""
    return "" if isinstance(source, LayoutSource) else source.host


@asynccontextmanager
async def open_tree(source: Source, settings: Settings) -> AsyncIterator[Directory]:
    """The root directory of a source, for as long as the block lasts. Raises what keeps it from being opened."""
    async with trio.open_nursery() as nursery:
        assert isinstance(source, LayoutSource)
        origin = await _open_layout(source, nursery, settings)
        yield await _open_root(source, origin, settings)
        nursery.cancel_scope.cancel()


async def _open_layout(source: LayoutSource, nursery: trio.Nursery, settings: Settings) -> Origin:
    layout = await Layout.open(Path(source.path), nursery, settings.limits, archive=source.archive)
    return Origin(str(source), layout, layout)


async def _open_root(source: Source, origin: Origin, settings: Settings) -> Directory:
    context = Context(origin, settings.view, settings.limits, settings.timing.tag_ttl)
    if isinstance(source, Reference):
        return await open_single(context, source.repository, source.digest or source.tag)
    if isinstance(source, LayoutSource):
        if source.ref:
            return await open_single(context, "", source.ref)
        return RepositoryDirectory(context, "", ("repository",), repository=True)
    return RepositoryDirectory(context, source.path, ("repository",), repository=bool(source.path))
