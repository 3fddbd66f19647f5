"""Serves a mount by the kernel: from the choice to its end.

`ocifs.mounting` calls `KernelServer.serve` in the event loop, once for each mount, with the root of
a tree. It returns whether the kernel served the mount. If it could not, nothing was mounted, and
FUSE serves the tree.

    choose     the options, a probe mount, the layers: each may have a reason against it
    image      the EROFS image of the tree, from the cache or written now
    mount      FUSE for the data, EROFS, an overlay; or, with a file of all data, no FUSE
    end        by a signal or an unmount, as every mount

Rules that hold here:

- `auto` never fails for a reason that FUSE does not have. `always` fails with the reason.
- The layers are read before the mount answers, because the image has all of their names.
- The report has the choice and its reason, for the log, `ocifs status` and `status.json`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from ocifs.concurrency import Deadline, deadline, guarded, in_thread, ungrouped
from ocifs.errors import OcifsError, UsageError
from ocifs.fuse.kernel.attach import KernelMount, KernelRequest
from ocifs.fuse.kernel.control import open_control, serve_control
from ocifs.fuse.kernel.probe import Probe, probe
from ocifs.fuse.kernel.records import control_of
from ocifs.fuse.session import (
    SessionOptions,
    ending_signals,
    has_terminal,
    is_refresh,
    serve,
)
from ocifs.fuse.stats import Stats
from ocifs.settings import MountFlags, Settings
from ocifs.tree.device import data_file, device_directory
from ocifs.tree.node import Directory
from ocifs.tree.rootfs.root import RootImage, open_root_image

log = logging.getLogger("ocifs.fuse")

_VIEW = "rootfs"
_READING_LAYERS = 24 * 3600.0  # seconds in which all layers of an image must have been read


@dataclass(slots=True)
class KernelReport:
    """The server of a mount, `fuse` or `erofs`, and the reason."""

    requested: str
    served_by: str = "fuse"
    reason: str = ""

    def facts(self) -> dict[str, object]:
        """The field `kernel` of status.json."""
        return {
            "requested": self.requested,
            "served_by": self.served_by,
            "reason": self.reason,
        }


class KernelServer:
    """Serves one mount, if the kernel can.

    `files` are the control files; a mount without a daemon has the status at its start.
    """

    def __init__(
        self,
        options: SessionOptions,
        settings: Settings,
        stats: Stats,
        files: Mapping[bytes, Callable[[], bytes]],
    ) -> None:
        self.report = KernelReport(options.flags.kernel)
        self._options = options
        self._settings = settings
        self._stats = stats
        self._files = files
        self._is_ready = False

    async def serve(self, root: Directory, on_ready: Callable[[], None]) -> bool:
        """Serve a tree until the mount ends. False, with nothing mounted, if the kernel cannot."""
        flags = self._options.flags
        if flags.kernel == "never":
            return False
        try:
            method = await self._choose()
            with self._deadline():
                image = await open_root_image(root, _owner_of(flags))
            # A nursery would wrap an error in a group, which is not an OcifsError.
            with contextlib.closing(image.erofs), ungrouped():
                await self._serve(image, method, on_ready)
            return True
        except OcifsError as error:
            if self._is_ready or flags.kernel == "always":
                raise
            self.report.served_by, self.report.reason = "fuse", str(error)
            log.info("FUSE serves %s: %s", self._options.mountpoint, error)
            return False

    def _deadline(self) -> AbstractContextManager[Deadline]:
        """A deadline for reading layers, which may take longer than any one request."""
        return deadline(self._settings.timing.timeout, _READING_LAYERS)

    async def _choose(self) -> str:
        """The method of the probe. Raises UsageError with the reason against all methods."""
        view = self._settings.view.view
        if view != _VIEW:
            text = f"the kernel serves --view {_VIEW} only, not --view {view}"
            raise UsageError(text, hint=f"add --view {_VIEW}, or omit --kernel always")
        flags = self._options.flags
        if flags.umask or flags.no_xattrs:
            option = "--umask" if flags.umask else "--no-xattrs"
            raise UsageError(f"the kernel cannot serve it with {option}", hint=f"omit {option}")
        found: Probe = await in_thread(probe, self._settings.cache.directory)
        if not found.method:
            text = f"the kernel cannot serve {self._options.mountpoint}: {found.reason}"
            raise UsageError(text, hint="use --kernel auto to fall back to FUSE")
        self.report.served_by, self.report.reason = "erofs", found.reason
        return found.method

    async def _serve(self, image: RootImage, method: str, on_ready: Callable[[], None]) -> None:
        options, files = self._options, self._files
        status = json.loads(files[b"status.json"]())
        request = KernelRequest(
            options.mountpoint, options.name, options.flags, method, image.erofs.fileno(), status
        )

        def ready() -> None:
            self._is_ready = True
            log.info("the kernel serves %s as EROFS", options.mountpoint)
            on_ready()

        if options.flags.prefetch or not image.erofs.data.size:
            await self._serve_without_daemon(image, request, ready)
            return
        async with _created(request) as kernel, trio.open_nursery() as nursery:
            listener = await open_control(control_of(kernel.place))
            nursery.start_soon(guarded, "answering status requests", serve_control, listener, files)
            # FUSE serves the daemon's own mount only: flags of the user are for the one on top.
            inner = replace(options, mountpoint=kernel.fuse, flags=MountFlags(), kernel=kernel)
            root, timing = device_directory(image), self._settings.timing
            await serve(root, inner, timing, self._stats, ready)
            nursery.cancel_scope.cancel()

    async def _serve_without_daemon(
        self, image: RootImage, request: KernelRequest, on_ready: Callable[[], None]
    ) -> None:
        """Mount, and leave the mount. In the foreground, wait for its end or a signal."""
        with ExitStack() as stack:
            path = None
            if image.erofs.data.size:
                with self._deadline():
                    data = stack.enter_context(await data_file(image))
                # The verified file, as for the image. Its path may name another one by now.
                path = Path(f"/proc/self/fd/{data.fileno()}")
            if not request.flags.foreground:
                kernel = await in_thread(KernelMount.create, request)
                try:
                    await in_thread(lambda: kernel.mount(path, has_daemon=False))
                except BaseException:
                    await in_thread(kernel.release)
                    raise
                on_ready()
                return
            had_terminal = has_terminal()
            with trio.open_signal_receiver(*ending_signals()) as signals:
                async with _created(request) as kernel, trio.open_nursery() as nursery:
                    await in_thread(lambda: kernel.mount(path, has_daemon=False))
                    on_ready()
                    nursery.start_soon(_wait_for_end, kernel, nursery.cancel_scope)
                    async for number in signals:
                        # An image that is mounted by its manifest has no names to refresh.
                        if is_refresh(number, had_terminal=had_terminal):
                            continue
                        log.info("ending on %s", signal.Signals(number).name)
                        nursery.cancel_scope.cancel()


def _owner_of(flags: MountFlags) -> tuple[int, int]:
    """The user and group of files that do not keep theirs."""
    uid = os.getuid() if flags.uid is None else flags.uid
    return uid, os.getgid() if flags.gid is None else flags.gid


@asynccontextmanager
async def _created(request: KernelRequest) -> AsyncIterator[KernelMount]:
    """A mount, not yet made, that has ended after the block."""
    kernel = await in_thread(KernelMount.create, request)
    try:
        yield kernel
    finally:
        with trio.CancelScope(shield=True):
            await in_thread(kernel.release)


async def _wait_for_end(kernel: KernelMount, scope: trio.CancelScope) -> None:
    """Cancel a scope when the mount has ended."""
    while not await in_thread(kernel.has_ended):
        await in_thread(_wait_for_mount_table, abandon_on_cancel=True)
    scope.cancel()


def _wait_for_mount_table() -> None:
    """Wait for a change of the mount table, or a second (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb") as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        poll.poll(1000)
