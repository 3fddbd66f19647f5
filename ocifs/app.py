"""The composition root: the only module that joins what users see with where bytes come from.

Rules that hold here: no decision of its own, only assembly; whatever lives as long as a mount belongs to the one nursery opened here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import trio

from ocifs import __version__
from ocifs.concurrency import ungrouped
from ocifs.content import Origin
from ocifs.errors import UsageError
from ocifs.fuse.journal import Journal
from ocifs.layers.workshop import Workshop
from ocifs.layout.layout import Layout
from ocifs.memory import keep_freed_memory
from ocifs.oci.reference import LayoutSource, Reference, Source
from ocifs.registry.locations import Locations
from ocifs.registry.mirrors import Mirrored, open_mirrored
from ocifs.settings import Settings
from ocifs.store.blobs import CachedBlobs
from ocifs.store.disk import Disk
from ocifs.store.housekeeper import Housekeeper
from ocifs.store.names import CachedCatalog
from ocifs.store.shelf import DiskShelf
from ocifs.tree.context import Context
from ocifs.tree.control import MountRoot
from ocifs.tree.node import Directory
from ocifs.tree.registry import RepositoryDirectory
from ocifs.tree.single import open_single
from ocifs.watched import Traffic, WatchedCatalog, WatchedSource

# Each says what is so now, for `.ocifs/status.json`; it blocks on nothing and asks nobody.
Status: TypeAlias = Callable[[], dict[str, object]]
Facts: TypeAlias = dict[str, Status]


def host_of(source: Source) -> str:
    """The host that a source is on; empty for a layout."""
    return "" if isinstance(source, LayoutSource) else source.host


@asynccontextmanager
async def open_tree(source: Source, settings: Settings, facts: Facts | None = None) -> AsyncIterator[Directory]:
    """The root directory of a source, for as long as the block lasts. Raises what keeps it from being opened.

    `facts` is given what can be told about the parts.
    """
    facts = {} if facts is None else facts
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        disk = await trio.to_thread.run_sync(Disk, settings.cache.directory)
        if isinstance(source, LayoutSource):
            origin = await _open_layout(source, nursery, settings)
        else:
            locations = await Locations.read(settings.network)
            mirrored = await stack.enter_async_context(open_mirrored(source.host, locations, settings))
            origin = _open_origin(mirrored, Parts(disk, nursery, settings, facts))
        workshop = Workshop(origin.blobs, DiskShelf(disk), nursery, settings.limits)
        blobs = [origin.blobs] if isinstance(origin.blobs, CachedBlobs) else []
        housekeeper = Housekeeper(disk, settings.cache, [*blobs, workshop])
        nursery.start_soon(housekeeper.run)
        facts["cache"] = lambda: {
            "directory": str(settings.cache.directory),
            "offline": settings.cache.offline,
            **housekeeper.facts(),
        }
        yield await _open_root(
            source, Context(origin, settings.view, settings.limits, workshop, settings.timing.tag_ttl)
        )
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Parts:
    """What every registry of a tree is built with."""

    disk: Disk
    nursery: trio.Nursery
    settings: Settings
    facts: Facts


def _open_origin(mirrored: Mirrored, parts: Parts) -> Origin:
    host, settings, traffic = mirrored.host, parts.settings, Traffic(mirrored.host)
    if mirrored.has_mirrors:  # which leaves alone who does not answer, one by one
        settings = replace(settings, timing=replace(settings.timing, outage_pause=0.0))
    catalog = CachedCatalog(WatchedCatalog(mirrored, traffic), host, parts.disk, parts.nursery, settings)
    blobs = CachedBlobs(WatchedSource(mirrored, traffic), parts.disk, parts.nursery, settings)
    parts.facts[f"registry {host}"] = lambda: {
        **traffic.facts(),
        "stale": catalog.stale,
        **mirrored.facts(),
    }
    return Origin(host, catalog, blobs)


async def _open_layout(source: LayoutSource, nursery: trio.Nursery, settings: Settings) -> Origin:
    layout = await Layout.open(source, nursery, settings)
    return Origin(str(source), layout, layout)


async def _open_root(source: Source, context: Context) -> Directory:
    if isinstance(source, Reference):
        return await open_single(context, source.repository, source.digest or source.tag)
    if isinstance(source, LayoutSource):
        if source.ref:
            return await open_single(context, "", source.ref)
        return RepositoryDirectory(context, "", ("repository",), repository=True)
    return RepositoryDirectory(context, source.path, ("repository",), repository=bool(source.path))


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What is to be mounted, and where."""

    source: Source
    mountpoint: Path
    allow_other: bool = False
    metrics: tuple[str, int] | None = None  # where metrics are served


def mount(request: MountRequest, settings: Settings, on_ready: Callable[[], None]) -> None:
    """Mount a source and stay until the mount ends. Raises what keeps it from being made."""
    from ocifs.fuse.mounts import clear_dead_mount
    from ocifs.fuse.session import MountOptions, serve

    keep_freed_memory()
    clear_dead_mount(request.mountpoint)
    if not request.mountpoint.is_dir():
        raise UsageError(f"{request.mountpoint} is no directory", hint=f"mkdir -p {request.mountpoint}")
    journal = Journal()

    async def run() -> None:
        facts: Facts = {}
        async with open_tree(request.source, settings, facts) as tree, trio.open_nursery() as nursery:
            status = status_of(request.source, journal, facts)
            root = MountRoot(tree, control_files(status, journal))
            options = MountOptions(request.mountpoint, str(request.source), request.allow_other)
            if request.metrics:
                await _serve_metrics(nursery, request.metrics, status)
            await serve(root, options, settings.timing, journal, on_ready)
            nursery.cancel_scope.cancel()

    run_to_end(run)


async def _serve_metrics(nursery: trio.Nursery, address: tuple[str, int], status: Status) -> None:
    from ocifs.metrics import exposition
    from ocifs.scrape import open_listeners, serve_metrics

    listeners = await open_listeners(address)
    nursery.start_soon(serve_metrics, listeners, lambda: exposition(status()))


def status_of(source: Source, journal: Journal, parts: Facts) -> Status:
    """What makes a mount's status: what `.ocifs/status.json` shows and metrics are read from."""
    began = time.time()

    def status() -> dict[str, object]:
        return {
            "source": str(source),
            "pid": os.getpid(),
            "version": __version__,
            "seconds": round(time.time() - began, 1),
            "operations": dict(journal.operations),
            "operation_seconds": {name: round(seconds, 6) for name, seconds in journal.seconds.items()},
            "bytes_read": journal.bytes_read,
            "errors": dict(journal.errors),
            "unexpected": journal.unexpected,
            "registries": [tell() for name, tell in parts.items() if name.startswith("registry ")],
            **{name: tell() for name, tell in parts.items() if not name.startswith("registry ")},
        }

    return status


def control_files(status: Status, journal: Journal) -> dict[bytes, Callable[[], bytes]]:
    """What `.ocifs/` holds, and how each file is made."""
    return {
        b"status.json": lambda: json.dumps(status(), indent=2).encode() + b"\n",
        b"errors": journal.report,
        b"version": f"{__version__}\n".encode,
    }


def run_to_end(run: Callable[[], Awaitable[None]]) -> None:
    """Run the event loop; an error of ours comes out of its nurseries by itself, not in a group."""
    try:
        with ungrouped():
            trio.run(run)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None  # Ctrl-C, which came out of a nursery
