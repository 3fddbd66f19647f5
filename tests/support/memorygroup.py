"""A control group that bounds the memory of a process and of its page cache (cgroups(7), version 1
or 2).

Rules that hold here:
- The group is a child of this process's group, and is removed at the end of the block.
- A process enters it by being started inside `entered`. The kernel charges memory to the group that
  uses it first.
- OSError, with a reason, means that this machine does not allow it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.starter import new_interpreters

ROOT = Path("/sys/fs/cgroup")
END_SECONDS = 20.0


@dataclass(frozen=True)
class MemoryGroup:
    """A group's directory, this process's group, and the file names of the cgroup version."""

    place: Path
    home: Path
    is_v1: bool

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move this process into the group during the block, with the processes that it starts."""
        (self.place / "cgroup.procs").write_text(str(os.getpid()))
        try:
            with new_interpreters():
                yield
        finally:
            (self.home / "cgroup.procs").write_text(str(os.getpid()))

    def killed(self) -> int:
        """The number of processes that the kernel has killed for lack of memory."""
        name = "memory.oom_control" if self.is_v1 else "memory.events"
        fields = dict(line.split(" ", 1) for line in (self.place / name).read_text().splitlines())
        return int(fields.get("oom_kill", "0"))

    def most(self) -> int:
        """The peak of the group's memory in bytes, page cache included. 0 without a counter."""
        name = "memory.max_usage_in_bytes" if self.is_v1 else "memory.peak"
        with contextlib.suppress(FileNotFoundError):
            return int((self.place / name).read_text())
        return 0


def _home() -> tuple[Path, bool]:
    """The directory of this process's memory group, and whether it has version 1."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return ROOT / "memory" / path.lstrip("/"), True
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        place = ROOT / line.removeprefix("0::").lstrip("/")
        subtree = place / "cgroup.subtree_control"
        if line.startswith("0::") and subtree.exists() and "memory" in subtree.read_text().split():
            return place, False
    raise OSError(errno.ENOTSUP, "no control group here hands its memory controller down")


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """A group of at most `limit` bytes, without swap."""
    home, is_v1 = _home()
    group = MemoryGroup(home / f"ocifs-test-{os.getpid()}-{time.monotonic_ns()}", home, is_v1)
    group.place.mkdir()
    try:
        (group.place / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit))
        with contextlib.suppress(OSError):  # without swap accounting the file does not exist
            swap = ("memory.memsw.limit_in_bytes", limit) if is_v1 else ("memory.swap.max", 0)
            (group.place / swap[0]).write_text(str(swap[1]))
        yield group
    finally:
        _remove(group.place)


def _remove(place: Path) -> None:
    """Remove a group, which stays busy for a moment after the end of its last process."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            place.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # the kernel has no event for this
        else:
            return
