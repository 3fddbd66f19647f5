"""A mount, from the request to its end: the tree, the control files, the metrics and FUSE.

`mount` runs the event loop of the process that serves the mount: the daemon, or `ocifs mount -f`.

- Everything that lives as long as the mount belongs to the nursery that is opened here.
- The status and the metrics are read from memory: reading them never waits for a registry.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ocifs import __version__
from ocifs.app import Hooks, StatusSource, StatusSources, open_tree, run_to_end
from ocifs.concurrency import guarded
from ocifs.errors import UsageError
from ocifs.fuse.stats import Stats
from ocifs.memory import raise_descriptor_limit, tune_garbage_collector, tune_malloc
from ocifs.oci.reference import Source
from ocifs.settings import MountFlags, Settings
from ocifs.tree.control import Action, MountRoot

if TYPE_CHECKING:
    from ocifs.fuse.kernel_names import KernelNames

log = logging.getLogger("ocifs.fuse")


@dataclass(frozen=True, slots=True)
class MountRequest:
    """A source, the directory to mount it at, and the address that serves metrics.

    `in_background`: this process is a daemon, which has no terminal.
    """

    source: Source
    mountpoint: Path
    metrics: tuple[str, int] | None = None
    flags: MountFlags = field(default_factory=MountFlags)
    in_background: bool = False


def mount(
    request: MountRequest, settings: Settings, on_ready: Callable[[Sequence[str]], None]
) -> None:
    """Mount a source, and return when the mount has ended.

    `on_ready` is called with warnings as soon as the mount answers. Raises the errors that prevent
    the mount.
    """
    # Imported here, so that a missing libfuse is reported like any other error of a mount.
    from ocifs.fuse.mounts import clear_dead_mount, reject_live_mount, sweep_records

    # Before the first worker thread: the limit of arenas does not apply to existing ones.
    tune_malloc()
    raise_descriptor_limit()
    mountpoint = request.mountpoint
    # A dead mount makes every access to its mount point fail, so it is removed before the checks.
    clear_dead_mount(mountpoint)
    sweep_records()
    reject_live_mount(mountpoint)
    if not mountpoint.is_dir():
        hint = "name a directory" if mountpoint.exists() else f"mkdir -p {mountpoint}"
        raise UsageError(f"not a directory: {mountpoint}", hint=hint)
    _import_everything()
    tune_garbage_collector()
    run_to_end(lambda: _serve(request, settings, on_ready))


def _import_everything() -> None:
    """Import the modules that commands import late.

    In a mount the first lookup would import it, which takes up to 100 ms, in the event loop.
    """
    for name in (
        "ocifs.layers.service",
        "ocifs.layout.layout",
        "ocifs.registry.admission",
        "ocifs.tree.manifest.directory",
        "ocifs.tree.registry.hosts",
        "ocifs.tree.registry.single",
    ):
        importlib.import_module(name)


async def _serve(
    request: MountRequest, settings: Settings, on_ready: Callable[[Sequence[str]], None]
) -> None:
    from ocifs.fuse.kernel.serving import KernelServer
    from ocifs.fuse.kernel_names import KernelNames
    from ocifs.fuse.session import SessionOptions, serve
    from ocifs.tree.registry.single import WHOLE

    stats = Stats()
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        stats.record_note(text)

    sources: StatusSources = {}
    refresher = _Refresher(KernelNames())
    hooks = Hooks(warn, on_warning=warn, on_names=refresher.forgetters.append)
    # The nursery is the inner one: the metrics end before the tree that they are about.
    async with (
        open_tree(request.source, settings, sources, hooks) as tree,
        trio.open_nursery() as nursery,
    ):
        status = status_of(request.source, stats, sources)
        fsname = request.flags.fsname or str(request.source)
        options = SessionOptions(
            request.mountpoint,
            fsname,
            request.flags,
            refresher.names,
            refresh=refresher.run,
            in_background=request.in_background,
        )
        files = control_files(status, stats)
        kernel = KernelServer(options, settings, stats, files)
        sources["kernel"] = kernel.report.facts
        # Bound before the mount is made: a port in use is then an error of the command.
        if request.metrics:
            await _serve_metrics(nursery, request.metrics, status)
        if not await kernel.serve(tree, lambda: on_ready(warnings)):
            # Below a root filesystem, `.ocifs` would look like a directory of the image.
            hidden = settings.view.view != WHOLE
            actions: dict[bytes, Action] = {b"refresh": refresher.act}
            root = MountRoot(tree, files, actions, hidden=hidden)
            await serve(root, options, settings.timing, stats, lambda: on_ready(warnings))
        # The mount has ended; so do the metrics.
        nursery.cancel_scope.cancel()


async def _serve_metrics(
    nursery: trio.Nursery, address: tuple[str, int], status: StatusSource
) -> None:
    from ocifs.metrics import exposition
    from ocifs.scrape import open_listeners, serve_metrics

    listeners = await open_listeners(address)
    nursery.start_soon(
        guarded, "serving metrics", serve_metrics, listeners, lambda: exposition(status())
    )


class _Refresher:
    """Makes a mount ask the registries again (docs/decisions/0312-refreshing-names.md).

    `forgetters` forget the answers in memory, and `names` records the kernel's cached names.
    """

    def __init__(self, names: KernelNames) -> None:
        self.names = names
        self.forgetters: list[Callable[[], None]] = []
        # A second refresh must not return before the first one has invalidated its names.
        self._turn = trio.Lock()

    async def act(self) -> bytes:
        """The content of `.ocifs/refresh`."""
        await self.run()
        return b"refreshed\n"

    async def run(self) -> None:
        """Forget all names, and return when the kernel has done so as well."""
        async with self._turn:
            for forget in self.forgetters:
                forget()
            # Twice: an earlier request may be answered while the kernel forgets the others.
            for _ in range(2):
                await self.names.invalidate()
        log.info("refreshed: names are requested again")


def status_of(source: Source, stats: Stats, sources: StatusSources) -> StatusSource:
    """The function that makes a mount's status, for `.ocifs/status.json` and the metrics."""
    started = time.time()

    def status() -> dict[str, object]:
        seconds = {name: round(value, 6) for name, value in stats.seconds.items()}
        return {
            "source": str(source),
            "pid": os.getpid(),
            "version": __version__,
            "started": round(started, 3),
            "seconds": round(time.time() - started, 1),
            "operations": dict(stats.operations),
            "operation_seconds": seconds,
            "bytes_read": stats.bytes_read,
            "errors": dict(stats.errors),
            "unexpected": stats.unexpected,
            "registries": [read() for name, read in sources.items() if _is_registry(name)],
            **{name: read() for name, read in sources.items() if not _is_registry(name)},
        }

    return status


def _is_registry(name: str) -> bool:
    return name.startswith("registry ")


def control_files(status: StatusSource, stats: Stats) -> dict[bytes, Callable[[], bytes]]:
    """The files of `.ocifs/`, each with the function that makes its content."""
    return {
        b"status.json": lambda: json.dumps(status(), indent=2).encode() + b"\n",
        b"errors": stats.report,
        b"version": f"{__version__}\n".encode,
    }
