"""One mount, from the call that makes it to its end.

Rules that hold here: `serve` returns when the mount has ended, whoever ended it (a signal, `ocifs umount`, `fusermount3 -u`); readiness is
said only after the mount answered; nothing is invalidated from within a handler.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from ocifs.errors import UsageError
from ocifs.fuse.guard import Guard
from ocifs.fuse.journal import Journal
from ocifs.fuse.obstacles import obstacle
from ocifs.fuse.operations import Operations
from ocifs.fuse.turns import take_turns
from ocifs.settings import Timing
from ocifs.tree.node import Directory

log = logging.getLogger("ocifs.fuse")

# A reader that waits for a silent registry holds a task until its deadline; others must find one free.
MAX_TASKS = 1024

# The kernel reads ahead 128 KiB a request unless told otherwise; with 1 MiB a cached file is read about three times as fast.
READ_AHEAD_KIB = 1024


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a mount is made. `name` is what the mount table shows as its source."""

    mountpoint: Path
    name: str
    allow_other: bool = False
    auto_unmount: bool = False


async def serve(
    root: Directory, options: MountOptions, timing: Timing, journal: Journal, on_ready: Callable[[], None]
) -> None:
    """Mount a tree and answer the kernel until the mount ends. Raises UsageError where it cannot be made."""
    guard = Guard(timing, journal)
    take_turns(guard.busy)
    _mount(Operations(root, guard, timing), options)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.watch)
            nursery.start_soon(_end_on_signal, nursery.cancel_scope)
            nursery.start_soon(_announce, options.mountpoint, on_ready)
            await pyfuse3.main(max_tasks=MAX_TASKS)
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


def _mount(operations: Operations, options: MountOptions) -> None:
    flags = set(pyfuse3.default_options)
    name = options.name.replace("\\", "\\\\").replace(",", "\\,")
    flags |= {f"fsname={name}", "subtype=ocifs", "ro", "nosuid", "nodev"}
    if options.allow_other:
        flags.add("allow_other")
    if options.auto_unmount:
        flags.add("auto_unmount")
    try:
        pyfuse3.init(operations, str(options.mountpoint), flags)
    except RuntimeError as error:
        hint = obstacle(options.mountpoint, allow_other=options.allow_other)
        raise UsageError(f"cannot mount at {options.mountpoint}: {error}", hint=hint) from None


async def _announce(mountpoint: Path, on_ready: Callable[[], None]) -> None:
    """Say that the mount is ready, once it has answered."""
    found = await trio.to_thread.run_sync(os.stat, mountpoint)
    await trio.to_thread.run_sync(_read_ahead, found.st_dev)
    log.info("mounted at %s", mountpoint)
    on_ready()


def _read_ahead(device: int) -> None:
    with contextlib.suppress(OSError):  # only root may; it is a matter of speed alone
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))


async def _end_on_signal(whole: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.info("ending on %s", signal.Signals(number).name)
            pyfuse3.terminate()
            whole.cancel()  # handlers that wait for a registry would keep the mount until their deadlines
