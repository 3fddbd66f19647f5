"""The composition root: the only module that joins what users see with where bytes come from.

Rules that hold here: no decision of its own, only assembly; whatever lives as long as a mount
belongs to the one nursery opened here.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import trio

from ocifs import __version__
from ocifs.concurrency import guarded, in_thread, patience, ungrouped
from ocifs.content import ContentSource
from ocifs.errors import LimitExceeded, OcifsError, UsageError
from ocifs.fuse.stats import Journal
from ocifs.layers.service import LayerService
from ocifs.layout.layout import Layout
from ocifs.layout.unpacked import OnProgress
from ocifs.memory import fit_to_machine, raise_descriptor_limit, tune_garbage_collector, tune_malloc
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import HostsSource, Reference, RegistrySource, Source, seeds_of
from ocifs.registry.admission import AdmissionCandidate, admit_all
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.mirrors.mirrored import MirroredRegistry, open_mirrored
from ocifs.settings import MountFlags, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.store.names.cached import CachedCatalog
from ocifs.store.names.outage import BackoffSource, Outage
from ocifs.store.upkeep.housekeeper import Housekeeper, IdleCloser
from ocifs.tree.blob import OfHost
from ocifs.tree.control import MountRoot
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory
from ocifs.tree.registry.hosts import HostsDirectory
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.registry.single import WHOLE, open_single
from ocifs.watched import Traffic, WatchedCatalog, WatchedSource

log = logging.getLogger("ocifs.layout")

# Each says what is so now, for `.ocifs/status.json`; it blocks on nothing and asks nobody.
Status: TypeAlias = Callable[[], dict[str, object]]
Facts: TypeAlias = dict[str, Status]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called while a tree is open."""

    report: Callable[[str], None] | None = None
    """Called with damage that was found in the cache."""
    on_progress: OnProgress | None = None
    on_warning: Callable[[str], None] | None = None
    """If given, each named source is asked once whether it can be read, and this is called with what may keep it from that."""


@asynccontextmanager
async def open_tree(
    source: Source, settings: Settings, facts: Facts | None = None, hooks: Hooks = Hooks()
) -> AsyncIterator[Directory]:
    """The root directory of a source, for as long as the block lasts.

    Raises what keeps it from being opened.

    `facts` is given what can be told about the parts.
    """
    settings = await in_thread(fit_to_machine, settings)
    facts = {} if facts is None else facts
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        disk = await in_thread(Disk, settings.cache.directory)
        closers: list[IdleCloser] = []
        housekeeper = Housekeeper(disk, settings.cache, closers)
        parts = Parts(disk, nursery, settings, facts, closers)
        disk.report = hooks.report or disk.report
        if isinstance(source, LayoutSource):
            root = await _open_layout(source, parts, hooks.on_progress)
        else:
            hosts = Hosts(parts, stack, await RouteTable.read(settings.network), source)
            with patience(settings.timing.timeout, settings.timing.max_wait):
                root = await hosts.root()
                if hooks.on_warning is not None and not settings.cache.offline:
                    await hosts.admit(hooks.on_warning)
        nursery.start_soon(guarded, "tidying the cache", housekeeper.run)
        facts["cache"] = lambda: {
            "directory": str(settings.cache.directory),
            "offline": settings.cache.offline,
            **housekeeper.facts(),
        }
        yield root
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Parts:
    """What everything of a tree is built with."""

    disk: Disk
    nursery: trio.Nursery
    settings: Settings
    facts: Facts
    closers: list[IdleCloser]

    def context(self, origin: ContentSource, seeds: tuple[str, ...] = ()) -> Context:
        """What the nodes of one origin share."""
        settings = self.settings
        tables = not settings.cache.verify_full
        layer_service = LayerService(
            origin.blobs, DerivedFiles(self.disk), self.nursery, settings.limits, tables=tables
        )
        self.closers.append(layer_service)
        view = replace(settings.view, repositories=seeds)
        return Context(
            origin, view, settings.limits, layer_service, settings.timing.tag_ttl, self.disk.report
        )


class Hosts:
    """The registries of a tree, each opened when it is first wanted, with its own client,
    credentials and caches of names.
    """

    def __init__(
        self,
        parts: Parts,
        stack: AsyncExitStack,
        locations: RouteTable,
        source: RegistrySource | Reference | HostsSource,
    ) -> None:
        self._parts = parts
        self._stack = stack
        self._locations = locations
        self._source = source
        self._opening = trio.Lock()
        self._opened: dict[str, Directory] = {}
        self._traffic: dict[str, Traffic] = {}
        self._asked: dict[
            str, tuple[MirroredRegistry, CachedCatalog, tuple[str, ...]]
        ] = {}  # seeds are those of --repo

    async def root(self) -> Directory:
        """The root of the tree.

        Raises what keeps a reference, or one of several hosts, from being opened.
        """
        source = self._source
        if not isinstance(source, HostsSource):
            context = await self._context(source.host)
            if isinstance(source, Reference):
                return await open_single(context, source.repository, source.digest or source.tag)
            return RepositoryDirectory(
                context, source.path, ("repository",), repository=bool(source.path)
            )
        for host in source.hosts:
            await self.open(host)
        return HostsDirectory(
            self.open, self.listed, None if source.any else frozenset(source.hosts)
        )

    async def admit(self, on_warning: Callable[[str], None]) -> None:
        """Ask once for each source that is named whether it can be read.

        Raises as `admit_all`; opening a reference has asked.
        """
        source, timing = self._source, self._parts.settings.timing
        if isinstance(source, Reference):
            return
        several = source if isinstance(source, HostsSource) else HostsSource((source,))
        applicants = []
        for part in several.parts:
            mirrored, catalog, seeds = self._asked[part.host]
            applicants.append(AdmissionCandidate(part, mirrored, catalog, seeds, catalog.is_known))
        seconds = min(timing.stale_after, timing.timeout / 3)
        for warning in await admit_all(applicants, seconds, or_any=several.any):
            on_warning(warning)

    async def open(self, host: str) -> Directory:
        """The directory of one of several hosts. Asks nobody."""
        async with self._opening:
            if host not in self._opened:
                most = self._parts.settings.limits.hosts
                if len(self._opened) >= most:
                    raise LimitExceeded(
                        f"more than {most} hosts were looked up in this mount (limits.hosts)"
                    )
                context = await self._context(host)
                self._opened[host] = RepositoryDirectory(context, "", ("host", host))
            return self._opened[host]

    def listed(self) -> list[str]:
        """The hosts that were named, or have answered."""
        named = self._source.hosts if isinstance(self._source, HostsSource) else ()
        return [*named, *(host for host, traffic in self._traffic.items() if traffic.reachable)]

    async def _context(self, host: str) -> Context:
        mirrored = await self._stack.enter_async_context(
            open_mirrored(host, self._locations, self._parts.settings)
        )
        traffic = self._traffic[host] = Traffic(host)
        alone = not isinstance(self._source, HostsSource)
        seeds = seeds_of(host, self._parts.settings.view.repositories, alone=alone)
        catalog, origin = _open_origin(mirrored, traffic, self._parts, alone=alone)
        self._asked[host] = mirrored, catalog, seeds
        if isinstance(self._source, HostsSource):
            seeds += tuple(
                part.path for part in self._source.parts if part.host == host and part.path
            )
        return self._parts.context(origin, seeds)


def _open_origin(
    mirrored: MirroredRegistry, traffic: Traffic, parts: Parts, *, alone: bool
) -> tuple[CachedCatalog, ContentSource]:
    host, settings = mirrored.host, parts.settings
    if mirrored.has_mirrors:  # which leaves alone who does not answer, one by one
        settings = replace(settings, timing=replace(settings.timing, outage_pause=0.0))
    catalog = CachedCatalog(
        WatchedCatalog(mirrored, traffic), host, parts.disk, parts.nursery, settings
    )
    outage = Outage(settings.timing.outage_pause, settings.timing.timeout / 2)
    catalog.on_answer = outage.over
    catalog.identify = mirrored.identity
    source = BackoffSource(WatchedSource(mirrored, traffic), outage)
    blobs = CachedBlobs(source, parts.disk, parts.nursery, settings, host)
    blobs.has_seen = catalog.has_seen
    parts.closers.append(blobs)
    parts.facts[f"registry {host}"] = lambda: {
        **traffic.facts(),
        "stale": catalog.stale,
        "catalog_error": catalog.catalog_error,
        **mirrored.facts(),
    }
    return catalog, ContentSource(host, catalog, blobs if alone else OfHost(host, blobs))


async def _open_layout(
    source: LayoutSource, parts: Parts, on_progress: OnProgress | None
) -> Directory:
    """The root of a local source: the manifest that is named, or the only one, or all of them."""
    settings, shelf = parts.settings, DerivedFiles(parts.disk)
    with patience(settings.timing.timeout, settings.timing.max_wait):
        layout = await Layout.open(source, parts.nursery, settings, shelf, on_progress)
        context = parts.context(ContentSource(str(source), layout, layout))
        if source.ref:
            return await open_single(context, "", await layout.version(source.ref))
        names = await layout.names()
        only = names.only()
        if only is not None and only.descriptor is not None:
            try:
                return await open_single(context, "", only.descriptor.digest, tags=True)
            except OcifsError as error:
                if settings.view.view != WHOLE:
                    raise
                log.warning("%s: the only image cannot be read: %s", source, error)
    if settings.view.view != WHOLE:
        hint = f"there are: {', '.join(names.shown[:8])}" if names.shown else ""
        raise UsageError(
            f"--view {settings.view.view} is for one image, and {source} has {len(names.shown)}",
            hint=hint,
        )
    return RepositoryDirectory(context, "", ("repository",), repository=True)


async def look_at_layout(
    source: LayoutSource, settings: Settings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a local source's images, and what is odd about it.

    Raises what keeps it from being opened.
    """
    disk = await in_thread(Disk, settings.cache.directory)
    async with trio.open_nursery() as nursery:
        layout = await Layout.open(source, nursery, settings, DerivedFiles(disk))
        found = (await layout.names()).shown, await layout.notes()
        nursery.cancel_scope.cancel()
    return found


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What is to be mounted, and where."""

    source: Source
    mountpoint: Path
    metrics: tuple[str, int] | None = None  # where metrics are served
    flags: MountFlags = field(default_factory=MountFlags)


def mount(
    request: MountRequest, settings: Settings, on_ready: Callable[[Sequence[str]], None]
) -> None:
    """Mount a source and stay until the mount ends.

    Raises what keeps it from being made. `on_ready` is called with warnings.
    """
    from ocifs.fuse.mounts import clear_dead_mount, refuse_live_mount
    from ocifs.fuse.session import MountOptions, serve

    tune_malloc()
    raise_descriptor_limit()
    place = request.mountpoint
    clear_dead_mount(place)
    refuse_live_mount(place)
    if not place.is_dir():
        hint = "name a directory" if place.exists() else f"mkdir -p {place}"
        raise UsageError(f"{place} is no directory", hint=hint)
    journal = Journal()
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        journal.tell(text)

    async def run() -> None:
        facts: Facts = {}
        async with (
            open_tree(
                request.source, settings, facts, Hooks(journal.tell, on_warning=warn)
            ) as tree,
            trio.open_nursery() as nursery,
        ):
            status = status_of(request.source, journal, facts)
            root = MountRoot(
                tree, control_files(status, journal), hidden=settings.view.view != WHOLE
            )
            options = MountOptions(
                place, request.flags.fsname or str(request.source), request.flags
            )
            if request.metrics:
                await _serve_metrics(nursery, request.metrics, status)
            await serve(root, options, settings.timing, journal, lambda: on_ready(warnings))
            nursery.cancel_scope.cancel()

    tune_garbage_collector()
    run_to_end(run)


async def _serve_metrics(nursery: trio.Nursery, address: tuple[str, int], status: Status) -> None:
    from ocifs.metrics import exposition
    from ocifs.scrape import open_listeners, serve_metrics

    listeners = await open_listeners(address)
    nursery.start_soon(
        guarded, "serving metrics", serve_metrics, listeners, lambda: exposition(status())
    )


def status_of(source: Source, journal: Journal, parts: Facts) -> Status:
    """What makes a mount's status: what `.ocifs/status.json` shows and metrics are read from."""
    began = time.time()

    def status() -> dict[str, object]:
        return {
            "source": str(source),
            "pid": os.getpid(),
            "version": __version__,
            "started": round(began, 3),
            "seconds": round(time.time() - began, 1),
            "operations": dict(journal.operations),
            "operation_seconds": {
                name: round(seconds, 6) for name, seconds in journal.seconds.items()
            },
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
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None  # Ctrl-C, which came out of a nursery
        if group.split(BrokenPipeError)[1] is None:
            raise BrokenPipeError from None  # whoever read our output has read enough
        raise
