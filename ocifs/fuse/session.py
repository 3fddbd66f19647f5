"""Serves one mount, from mounting to unmounting.

`ocifs.mounting` calls `serve` in the event loop, with the root of a tree. Three background tasks
run beside pyfuse3's workers: one watches callers (`Guard.watch`), one waits for signals, and one
reports that the mount is ready. All of them end with the mount.

If the kernel serves the files (`kernel/attach.py`), the FUSE mount has only their data. It is
detached as soon as the EROFS mount exists, and ends with it.

Rules that hold here:

- `serve` returns when the mount has ended: by a signal, `ocifs umount` or `fusermount3 -u`.
- Signals are handled before there is a mount: a signal that ended the process would leave it dead.
- The mount is reported as ready only after it has answered a request.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio

from ocifs.concurrency import guarded, in_thread
from ocifs.errors import UsageError
from ocifs.fuse.attributes import Presentation
from ocifs.fuse.background import raise_limit
from ocifs.fuse.diagnose import diagnose_mount_failure
from ocifs.fuse.guard import Guard
from ocifs.fuse.kernel.attach import KernelMount
from ocifs.fuse.kernel_names import KernelNames
from ocifs.fuse.mounts import restrict
from ocifs.fuse.operations import Operations, OperationsWithoutXattrs
from ocifs.fuse.stats import Stats
from ocifs.fuse.worker_patch import patch_workers
from ocifs.settings import MountFlags, Timing
from ocifs.tree.device import NAME
from ocifs.tree.node import Directory

log = logging.getLogger("ocifs.fuse")

# The signals that end a process by default (signal(7)), except SIGHUP.
_ENDING = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGXCPU,
)

# A reader that waits for a registry occupies a task until its deadline. Other requests need free
# ones.
MAX_TASKS = 1024

# With 1 MiB, a cached file is read about three times as fast as with the kernel's default of 128
# KiB.
READ_AHEAD_KIB = 1024
# Of the data of a mount that the kernel serves (docs/decisions/0370-kernel-mounts.md).
DATA_READ_AHEAD_KIB = 1024


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to mount.

    - `name` is the source in the mount table.
    - `names` records the names that the kernel has cached.
    - `refresh` is called for SIGHUP, which otherwise ends the mount.
    - `in_background`: SIGHUP never ends the mount.
    - With `kernel`, the FUSE mount is the data of that one.
    """

    mountpoint: Path
    name: str
    flags: MountFlags = field(default_factory=MountFlags)
    names: KernelNames = field(default_factory=KernelNames)
    kernel: KernelMount | None = None
    refresh: Callable[[], Awaitable[None]] | None = None
    in_background: bool = False


async def serve(
    root: Directory,
    options: SessionOptions,
    timing: Timing,
    stats: Stats,
    on_ready: Callable[[], None],
) -> None:
    """Mount a tree and answer requests until the mount ends.

    Raises UsageError if mounting fails.
    """
    guard = Guard(timing, stats)
    patch_workers(guard.busy)
    handled = ending_signals(in_background=options.in_background)
    with trio.open_signal_receiver(*handled) as signals:
        handlers = OperationsWithoutXattrs if options.flags.no_xattrs else Operations
        shown_as = Presentation.of(options.flags)
        _mount(handlers(root, guard, timing, options.names, shown_as), options)
        await _serve(guard, options, signals, on_ready)


def ending_signals(*, in_background: bool = False) -> list[signal.Signals]:
    """The signals that can end the mount. Signals that the parent ignores (nohup) stay ignored,
    except SIGINT and SIGTERM, and in the background SIGHUP, which `detach` ignores.
    """
    always = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if in_background else [])]
    return [
        number
        for number in (*_ENDING, signal.SIGHUP)
        if number in always or signal.getsignal(number) is not signal.SIG_IGN
    ]


async def _serve(
    guard: Guard, options: SessionOptions, signals: AsyncIterator[int], on_ready: Callable[[], None]
) -> None:
    end = _End(options.kernel)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, "looking at callers", guard.watch)
            nursery.start_soon(
                guarded, "waiting for signals", end.on_signal, signals, options, nursery
            )
            # Not guarded: until the mount is ready, an error is one of `ocifs mount`.
            nursery.start_soon(_report_ready, options, guard, end, on_ready)
            await pyfuse3.main(max_tasks=MAX_TASKS)
            # `main` returns when the mount has ended. The other tasks would run for ever.
            nursery.cancel_scope.cancel()
    finally:
        options.names.close()
        kernel = options.kernel
        # After an error too: a process that ends without unmounting leaves a dead mount.
        pyfuse3.close(unmount=kernel is None or not kernel.is_detached)


def _mount(operations: Operations, options: SessionOptions) -> None:
    flags = set(pyfuse3.default_options)
    # libfuse separates options by commas, and a backslash escapes one.
    name = options.name.replace("\\", "\\\\").replace(",", "\\,")
    flags |= {f"fsname={name}", "subtype=ocifs", "ro", "nosuid", "nodev"}
    asked = options.flags
    flags |= {each for each in ("allow_other", "auto_unmount", "noexec") if getattr(asked, each)}
    if asked.nosymfollow and not _may_remount():
        flags.add("nosymfollow")
    try:
        pyfuse3.init(operations, str(options.mountpoint), flags)
    except RuntimeError:
        # Its text names a function of libfuse. The reason has to be found by looking.
        hint = diagnose_mount_failure(options.mountpoint, allow_other=asked.allow_other)
        if "nosymfollow" in flags:
            hint = "nosymfollow needs root or libfuse 3.17.1; without it: omit --nosymfollow"
        raise UsageError(f"cannot mount at {options.mountpoint}", hint=hint) from None


def _may_remount() -> bool:
    """Whether nosymfollow is set by a remount: libfuse before 3.17.1 lacks the option."""
    return os.geteuid() == 0


async def _report_ready(
    options: SessionOptions, guard: Guard, end: _End, on_ready: Callable[[], None]
) -> None:
    """Report that the mount is ready, once it has answered and has all flags."""
    mountpoint, kernel = options.mountpoint, options.kernel
    try:
        # The event loop answers this request, so it must not wait for it.
        found = await in_thread(os.stat, mountpoint)
        await in_thread(_raise_readahead, found.st_dev, kernel is not None)
        guard.background_limit = await in_thread(raise_limit, found.st_dev)
        if kernel is not None:
            # The kernel opens the file of data, and copies its read-ahead window then.
            await in_thread(kernel.mount, mountpoint / os.fsdecode(NAME))
    finally:
        end.may_begin.set()
    if kernel is None and options.flags.nosymfollow and _may_remount():
        flags = ["nosymfollow", *(["noexec"] if options.flags.noexec else [])]
        # mount(8) accesses the mount, so waiting for it in the event loop would deadlock.
        await in_thread(restrict, mountpoint, flags)
    log.info("mounted at %s", mountpoint if kernel is None else kernel.mountpoint)
    on_ready()


def _raise_readahead(device: int, is_data: bool) -> None:
    # Only root may set it. It only affects speed.
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(
            str(DATA_READ_AHEAD_KIB if is_data else READ_AHEAD_KIB)
        )


class _End:
    """Ends a mount at a signal. `may_begin` is set when no thread mounts any more: such a thread
    waits for the event loop, and could not be waited for after its end.
    """

    def __init__(self, kernel: KernelMount | None) -> None:
        self.may_begin = trio.Event()
        self._kernel = kernel

    async def on_signal(
        self, signals: AsyncIterator[int], options: SessionOptions, nursery: trio.Nursery
    ) -> None:
        """Wait for a signal, and end or refresh the mount."""
        had_terminal = not options.in_background and has_terminal()
        async for number in signals:
            if is_refresh(number, had_terminal=had_terminal):
                if options.refresh is not None:
                    nursery.start_soon(guarded, "refreshing", options.refresh)
                continue
            log.info("ending on %s", signal.Signals(number).name)
            try:
                if self._kernel is not None:
                    await self.may_begin.wait()
                    await in_thread(self._kernel.release)
                pyfuse3.terminate()
            finally:
                # Handlers that wait for a registry would delay the end until their deadlines.
                nursery.cancel_scope.cancel()


def is_refresh(number: int, *, had_terminal: bool) -> bool:
    """Whether a signal is a request to refresh: a SIGHUP, but not that of a closed terminal.

    The kernel sends that one when the terminal is gone.
    """
    return number == signal.SIGHUP and not (had_terminal and not has_terminal())


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is open (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
