"""The composition root: the only module that joins the trees with the sources of their bytes.

`open_tree` is called by the Python API, by verbs and by mounts, once for each tree, in the event
loop of that tree. Everything that lives as long as the tree belongs to the nursery that is opened
there: the housekeeper of the cache, fetches, background requests.

- A registry is opened when it is first used, with its own client, credentials and name cache.
- This module only assembles; it decides nothing.
- Each part adds a source to `status`, from which status.json and the metrics are made.
- Modules that some sources do not need are imported where they are used, for the start of commands.
  A mount imports them before its event loop starts (mounting.py): that takes up to 100 ms.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import trio

from ocifs.concurrency import deadline, guarded, in_thread, ungrouped
from ocifs.content import ContentSource
from ocifs.errors import LimitExceeded, OcifsError, UsageError
from ocifs.memory import fit_to_machine
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import HostsSource, Reference, RegistrySource, Source, seeds_of
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.auth.sources import standard_sources
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.mirrors.mirrored import MirroredRegistry, open_mirrored
from ocifs.settings import Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import CacheDirectory, Disk
from ocifs.store.names.access import RegistryIdentity
from ocifs.store.names.cached import CachedCatalog
from ocifs.store.names.outage import BackoffSource, Outage
from ocifs.store.upkeep.housekeeper import Housekeeper, IdleCloser
from ocifs.tree.blob import ScopedReader
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.watched import Traffic, WatchedCatalog, WatchedSource

if TYPE_CHECKING:
    from ocifs.layers.service import LayerService

log = logging.getLogger("ocifs.layout")

ADMISSION_SECONDS = 2.0
"""How long a mount waits for its registries, before it is made with a warning."""

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of a file, the number of processed bytes, and its size."""
StatusSource: TypeAlias = Callable[[], dict[str, object]]
"""Returns fields of `.ocifs/status.json`, from memory and without waiting."""
StatusSources: TypeAlias = dict[str, StatusSource]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks for the time that a tree is open.

    - `report` is called with damage that was found in the cache.
    - `on_progress` is called while an archive is unpacked.
    - `on_names` is called for each cache of names, with a function that makes it forget them.
    - `on_warning`: each named source is requested once before the tree is returned, and this is
      called with problems that may prevent reads. Without it nothing is requested.
    """

    report: Callable[[str], None] | None = None
    on_progress: OnProgress | None = None
    on_warning: Callable[[str], None] | None = None
    on_names: Callable[[Callable[[], None]], None] = lambda _: None


@asynccontextmanager
async def open_tree(
    source: Source, settings: Settings, status: StatusSources | None = None, hooks: Hooks = Hooks()
) -> AsyncIterator[Directory]:
    """The root directory of a source, while the block lasts.

    `status` is filled with the sources of the tree's status. Raises the errors that prevent opening
    it.
    """
    # Reads /proc and the limits of the control group, which may block.
    settings = await in_thread(fit_to_machine, settings)
    status = {} if status is None else status
    # The nursery ends first: its tasks use the clients that the stack closes.
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        directory = await in_thread(CacheDirectory, settings.cache.directory)
        closers: list[IdleCloser] = []
        housekeeper = Housekeeper(directory, settings.cache, closers)
        disk = await in_thread(Disk, settings.cache.directory, housekeeper, hooks.report)
        reports = (hooks.report or log.debug, hooks.on_names)
        parts = Parts(disk, nursery, settings, status, closers, *reports)
        if isinstance(source, LayoutSource):
            root = await _open_layout(source, parts, hooks.on_progress)
        else:
            routes = await RouteTable.read(settings.network)
            sources = standard_sources(settings, os.environ, routes.credential_helpers)
            hosts = Hosts(parts, stack, routes, sources, source)
            with deadline(settings.timing.timeout, settings.timing.max_wait):
                root = await hosts.root()
                if hooks.on_warning is not None and not settings.cache.offline:
                    await hosts.admit(hooks.on_warning)
        nursery.start_soon(guarded, "tidying the cache", housekeeper.run)
        status["cache"] = lambda: {
            "directory": str(settings.cache.directory),
            "offline": settings.cache.offline,
            **housekeeper.facts(),
        }
        yield root
        # Background work ends with the tree. The fetched content is in the cache.
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Parts:
    """The dependencies of everything in a tree."""

    disk: Disk
    nursery: trio.Nursery
    settings: Settings
    status: StatusSources
    closers: list[IdleCloser]
    note: Callable[[str], None]
    on_names: Callable[[Callable[[], None]], None]

    def context(self, origin: ContentSource, seeds: tuple[str, ...] = ()) -> Context:
        """The context that the nodes of one origin share."""
        settings = self.settings

        @cache
        def layer_service() -> LayerService:
            # Imported here: a listing of tags needs none of it.
            from ocifs.layers.service import LayerService
            from ocifs.layers.toc.formats import FORMATS

            # With full verification no byte is shown before the whole layer was verified.
            formats = () if settings.cache.verify_full else FORMATS
            service = LayerService(
                origin.blobs,
                DerivedFiles(self.disk),
                self.nursery,
                settings.limits,
                formats=formats,
            )
            self.closers.append(service)
            return service

        view = replace(settings.view, repositories=seeds)
        context = Context(
            origin,
            view,
            settings.limits,
            layer_service,
            settings.timing.tag_ttl,
            self.disk.report,
            self.note,
        )
        self.on_names(context.forget_names)
        return context


class Hosts:
    """The registries of a tree, each opened when it is first used.

    A registry has its own client, credentials and name cache, which live as long as `stack`.
    """

    def __init__(
        self,
        parts: Parts,
        stack: AsyncExitStack,
        routes: RouteTable,
        sources: CredentialSources,
        source: RegistrySource | Reference | HostsSource,
    ) -> None:
        self._parts = parts
        self._stack = stack
        self._routes = routes
        self._sources = sources
        self._source = source
        # Lookups of one host run at the same time, but its registry is opened once.
        self._opening = trio.Lock()
        self._opened: dict[str, Directory] = {}
        self._traffic: dict[str, Traffic] = {}
        # By host: the registry, its catalog, and its repositories of --repo.
        self._contacts: dict[str, tuple[MirroredRegistry, CachedCatalog, tuple[str, ...]]] = {}

    async def root(self) -> Directory:
        """The root of the tree.

        Raises the errors that prevent opening a reference, or one of several hosts.
        """
        source = self._source
        if not isinstance(source, HostsSource):
            context = await self._context(source.host)
            if isinstance(source, Reference):
                from ocifs.tree.registry.single import open_single

                return await open_single(context, source.repository, source.digest or source.tag)
            return RepositoryDirectory(
                context, source.path, ("repository",), repository=bool(source.path)
            )
        # Named hosts are opened now: an error of their configuration is an error of the mount.
        for host in source.hosts:
            await self.open(host)
        from ocifs.tree.registry.hosts import HostsDirectory

        return HostsDirectory(
            self.open, self.listed, None if source.any else frozenset(source.hosts)
        )

    async def admit(self, on_warning: Callable[[str], None]) -> None:
        """Request each named source once, to find out whether it can be read.

        A reference has been requested when it was opened. Raises as `admit_all`.
        """
        from ocifs.registry.admission import AdmissionCandidate, admit_all

        source, timing = self._source, self._parts.settings.timing
        if isinstance(source, Reference):
            return
        several = source if isinstance(source, HostsSource) else HostsSource((source,))
        candidates = []
        for part in several.parts:
            mirrored, catalog, seeds = self._contacts[part.host]
            candidates.append(AdmissionCandidate(part, mirrored, catalog, seeds, catalog.is_known))
        # Short enough that a registry that is down delays a mount, but does not prevent it.
        seconds = min(ADMISSION_SECONDS, timing.timeout / 3)
        for warning in await admit_all(candidates, seconds, or_any=several.any):
            on_warning(warning)

    async def open(self, host: str) -> Directory:
        """The directory of one of several hosts. Sends no request."""
        async with self._opening:
            if host not in self._opened:
                # A program can look up any name below --any, and an open host is never closed.
                limit = self._parts.settings.limits.hosts
                if len(self._opened) >= limit:
                    raise LimitExceeded(
                        f"more than {limit} hosts were looked up in this mount (limits.hosts)"
                    )
                context = await self._context(host)
                self._opened[host] = RepositoryDirectory(context, "", ("host", host))
            return self._opened[host]

    def listed(self) -> list[str]:
        """The named hosts, and all that have answered."""
        named = self._source.hosts if isinstance(self._source, HostsSource) else ()
        return [*named, *(host for host, traffic in self._traffic.items() if traffic.reachable)]

    async def _context(self, host: str) -> Context:
        mirrored = await self._stack.enter_async_context(
            open_mirrored(host, self._routes, self._parts.settings, self._sources)
        )
        traffic = self._traffic[host] = Traffic(host)
        alone = not isinstance(self._source, HostsSource)
        seeds = seeds_of(host, self._parts.settings.view.repositories, alone=alone)
        catalog, origin = _open_origin(mirrored, traffic, self._parts, alone=alone)
        self._contacts[host] = mirrored, catalog, seeds
        # A named repository of one of several hosts is listed, like those of --repo.
        if isinstance(self._source, HostsSource):
            seeds += tuple(
                part.path for part in self._source.parts if part.host == host and part.path
            )
        return self._parts.context(origin, seeds)


def _open_origin(
    mirrored: MirroredRegistry, traffic: Traffic, parts: Parts, *, alone: bool
) -> tuple[CachedCatalog, ContentSource]:
    """The chain of readers of one registry, from the client to the cache.

    Each link adds one thing: traffic counters, the pause during an outage, the cache.
    """
    host, settings = mirrored.host, parts.settings
    if mirrored.has_mirrors:
        # The endpoints then back off one by one, and the other ones are tried meanwhile.
        settings = replace(settings, timing=replace(settings.timing, outage_pause=0.0))
    # A refused connection may be a restart: requests are repeated for half of the timeout.
    outage = Outage(settings.timing.outage_pause, settings.timing.timeout / 2)
    identity = RegistryIdentity(host, mirrored.identity, on_answer=outage.over)
    watched = WatchedCatalog(mirrored, traffic)
    catalog = CachedCatalog(watched, identity, parts.disk, parts.nursery, settings)
    source = BackoffSource(WatchedSource(mirrored, traffic), outage)
    blobs = CachedBlobs(source, parts.disk, parts.nursery, settings, catalog)
    parts.closers.append(blobs)
    parts.on_names(catalog.forget_names)
    parts.status[f"registry {host}"] = lambda: {
        **traffic.facts(),
        "stale": catalog.stale,
        "catalog_error": catalog.catalog_error,
        **mirrored.facts(),
    }
    # Equal digests of several hosts are different files, so their keys contain the host.
    return catalog, ContentSource(host, catalog, blobs if alone else ScopedReader(blobs, (host,)))


async def _open_layout(
    source: LayoutSource, parts: Parts, on_progress: OnProgress | None
) -> Directory:
    """The root of a local source: the named manifest, the only one, or the directory of all."""
    from ocifs.layout.layout import Layout
    from ocifs.tree.registry.single import WHOLE, open_single

    settings, derived = parts.settings, DerivedFiles(parts.disk)
    with deadline(settings.timing.timeout, settings.timing.max_wait):
        layout = await Layout.open(source, parts.nursery, settings, derived, on_progress)
        context = parts.context(ContentSource(str(source), layout, layout))
        if source.ref:
            return await open_single(context, "", await layout.version(source.ref))
        names = await layout.names()
        only = names.only()
        if only is not None and only.descriptor is not None:
            try:
                return await open_single(context, "", only.descriptor.digest, tags=True)
            except OcifsError as error:
                # The whole source can still be listed, but it has no root filesystem to mount.
                if settings.view.view != WHOLE:
                    raise
                log.warning("cannot read the only image of %s: %s", source, error)
    if settings.view.view != WHOLE:
        hint = f"name one: {', '.join(names.shown[:8])}" if names.shown else ""
        view = settings.view.view
        raise UsageError(
            f"--view {view} needs one image: {source} contains {len(names.shown)}", hint=hint
        )
    return RepositoryDirectory(context, "", ("repository",), repository=True)


def run_to_end(run: Callable[[], Awaitable[None]]) -> None:
    """Run an event loop. Raises an OcifsError by itself, not in the group of its nursery."""
    try:
        with ungrouped():
            trio.run(run)
    except BaseExceptionGroup as group:
        # Ctrl-C, and a pipe that its reader has closed, also come out of a nursery in a group.
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None
        if group.split(BrokenPipeError)[1] is None:
            raise BrokenPipeError from None
        raise
