"""The kernel's limit on background requests, and how it is shared between hosts.

The kernel sends read-ahead in the background: by default at most 12 requests for each mount, for
all files together. If as many wait for one host that does not answer, no other file of the mount
can be read. Two measures prevent that:

- `raise_limit` raises the limit if the system allows it. It blocks, in a worker thread, after
  mounting.
- `excess_reads` selects requests to answer early with an error. The guard calls it in the event
  loop several times a second. No program sees the error: the kernel drops the read-ahead, and a
  reader that needs the page requests it again in the foreground, where there is no limit.

Rules that hold here:

- A request is answered early only if its host is slow, and if more than a third of the limit waits
  for slow hosts.
- A range that was answered early is not answered early again: the next request comes from a reader.
- Reads with O_DIRECT are never answered early, since their reader would see the error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from ocifs.concurrency import Deadline

DEFAULT = 12
"""The kernel's default limit (fs/fuse/inode.c)."""

WANTED = 256
"""The limit to set. It is a fraction of the tasks that answer requests."""

SLOW = 0.5
"""A host is slow if a read has waited for it for more seconds than this."""

# Slow hosts may use a third of the limit.
_SHARE = 3
# Ranges of one file that are recorded as answered early.
_RANGES = 1024

# <linux/mount.h>. The numbers of these system calls are the same on every machine.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_CONNECTIONS = Path("/sys/fs/fuse/connections")


class BackgroundRead(Protocol):
    """A read in progress that may be answered early. `began` is a time of trio's clock."""

    began: float
    waiting: Deadline


R = TypeVar("R", bound=BackgroundRead)


def excess_reads(reads: Iterable[R], now: float, limit: int) -> list[R]:
    """The reads to answer early."""
    waiting = [read for read in reads if read.waiting.host is not None]
    slow = {read.waiting.host for read in waiting if now - read.began > SLOW}
    stuck = sorted(
        (read for read in waiting if read.waiting.host in slow), key=lambda read: read.began
    )
    return stuck[max(1, limit // _SHARE) :]


class EarlyAnswers:
    """The ranges of open files that were answered early."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def __contains__(self, place: tuple[int, int]) -> bool:
        inode, offset = place
        return any(start <= offset < stop for start, stop in self._ranges.get(inode, ()))

    def add(self, inode: int, offset: int, size: int) -> None:
        """Record that a request was answered early."""
        ranges = self._ranges.setdefault(inode, [])
        ranges.append((offset, offset + size))
        del ranges[:-_RANGES]

    def forget(self, inode: int) -> None:
        """Drop the ranges of a file that is no longer open."""
        self._ranges.pop(inode, None)


def raise_limit(device: int) -> int:
    """Raise the limit of the mount with this device number, as far as the system allows. Blocks.

    Returns the limit in effect.
    """
    # The major number of a FUSE mount is 0, so the minor number alone names its connection.
    connection = str(os.minor(device))
    with contextlib.suppress(OSError):
        return _raise(_CONNECTIONS / connection)
    with contextlib.suppress(OSError, AttributeError), _control_files() as directory:
        return _raise(directory / connection)
    return DEFAULT


def _raise(connection: Path) -> int:
    path = connection / "max_background"
    # Beyond fuse.max_user_bgreq, or of another user's mount, it cannot be set.
    with contextlib.suppress(OSError):
        if int(path.read_text()) < WANTED:
            # Three quarters of the limit is also the kernel's default (fs/fuse/inode.c).
            (connection / "congestion_threshold").write_text(str(WANTED * 3 // 4))
            path.write_text(str(WANTED))
    return int(path.read_text())


@contextlib.contextmanager
def _control_files() -> Iterator[Path]:
    """FUSE's control file system if it is not mounted: a detached mount, visible to this process
    only. Needs root.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    # The flag 1 is FSOPEN_CLOEXEC here, and FSMOUNT_CLOEXEC below.
    opened = _checked(call(_FSOPEN, b"fusectl", 1))
    try:
        _checked(call(_FSCONFIG, opened, _FSCONFIG_CMD_CREATE, None, None, 0))
        mounted = _checked(call(_FSMOUNT, opened, 1, 0))
    finally:
        os.close(opened)
    try:
        yield Path(f"/proc/self/fd/{mounted}")
    finally:
        os.close(mounted)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
