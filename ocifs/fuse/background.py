"""The kernel's limit of background requests, and how one host is kept from using it up.

The kernel sends read-ahead in the background, 12 requests of a mount at a time by default,
whichever files they are for. While as many wait for one host that does not answer, no other file of
the mount is read. So the limit is raised where the system allows, and what exceeds a share of it is
answered early with an error, which no program sees: the kernel drops the read-ahead, and a reader
that needs the page asks for it again in the foreground, where there is no limit.

Rules that hold here:
- a request is answered early only if its host is slow, and if more than a third of the limit waits
  for slow hosts;
- what was answered early is not answered early again: the next request for it is a reader's;
- reads with O_DIRECT are never answered early, since their reader would see the error.
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
"""The kernel's own limit (fs/fuse/inode.c)."""

WANTED = 256
"""Of the tasks that answer requests, most stay free for other operations."""

SLOW = 0.5
"""Seconds after which a host is slow that a read waits for."""

_SHARE = 3  # what may wait for slow hosts is a third of the limit
_RANGES = 1024  # of one file, that are remembered as answered early

# <linux/mount.h>, and the numbers of system calls that are the same on every machine
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_CONNECTIONS = Path("/sys/fs/fuse/connections")


class BackgroundRead(Protocol):
    """A read under way that may be answered early. `began`: on trio's clock."""

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
    """Which parts of which files were answered early."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def __contains__(self, place: tuple[int, int]) -> bool:
        inode, offset = place
        return any(start <= offset < stop for start, stop in self._ranges.get(inode, ()))

    def add(self, inode: int, offset: int, size: int) -> None:
        """A request was answered early."""
        ranges = self._ranges.setdefault(inode, [])
        ranges.append((offset, offset + size))
        del ranges[:-_RANGES]

    def forget(self, inode: int) -> None:
        """The file is not open any more."""
        self._ranges.pop(inode, None)


def raise_limit(device: int) -> int:
    """Raise the limit of the mount with this device number, as far as the system allows; the limit
    that holds. Blocks.
    """
    connection = str(os.minor(device))
    with contextlib.suppress(OSError):
        return _raise(_CONNECTIONS / connection)
    with contextlib.suppress(OSError, AttributeError), _control_files() as directory:
        return _raise(directory / connection)
    return DEFAULT


def _raise(connection: Path) -> int:
    path = connection / "max_background"
    with contextlib.suppress(OSError):  # beyond fuse.max_user_bgreq, or not ours
        if int(path.read_text()) < WANTED:
            (connection / "congestion_threshold").write_text(str(WANTED * 3 // 4))
            path.write_text(str(WANTED))
    return int(path.read_text())


@contextlib.contextmanager
def _control_files() -> Iterator[Path]:
    """FUSE's control file system, where it is not mounted: a mount of our own, without a place,
    that nothing else sees. Root only.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
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
