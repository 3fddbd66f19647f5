"""Helpers that open local sources and read their contents."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ocifs.concurrency import ungrouped
from ocifs.content import Blob
from ocifs.layout.layout import Layout
from ocifs.layout.unpacked import OnProgress
from ocifs.oci.local import LayoutSource
from ocifs.oci.manifest import Manifest, parse_manifest
from ocifs.settings import Settings
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk


@asynccontextmanager
async def opened(
    source: LayoutSource,
    settings: Settings | None = None,
    cache: Path | None = None,
    on_progress: OnProgress | None = None,
) -> AsyncIterator[Layout]:
    with ungrouped(), tempfile.TemporaryDirectory() as place:
        shelf = DerivedFiles(Disk(cache or Path(place)))
        async with trio.open_nursery() as nursery:
            yield await Layout.open(source, nursery, settings or Settings(), shelf, on_progress)
            nursery.cancel_scope.cancel()


async def manifest_of(layout: Layout, tag: str = "v1") -> Manifest:
    descriptor = await layout.resolve("", tag)
    raw = await layout.manifest("", descriptor.digest)
    return parse_manifest(raw.body, raw.digest, "", raw.media_type)


async def layer_of(layout: Layout, tag: str = "v1", number: int = 0) -> Blob:
    layer = (await manifest_of(layout, tag)).layers[number]
    return Blob("", layer.digest, layer.size)
