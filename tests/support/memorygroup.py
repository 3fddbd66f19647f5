"""A control group that bounds the memory of a process and of its page cache (cgroups(7), version 1
or 2).

Rules that hold here:
- The group is below that of this process, and goes with the block.
- A process enters it by being started inside `entered`: memory is charged to the group in which it
  is first used.
- What cannot be done here raises OSError, with a reason for people.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
END_SECONDS = 20.0


@dataclass(frozen=True)
class MemoryGroup:
    """A group's directory, that of this process, and the names of the files that differ between the
    versions.
    """

    place: Path
    home: Path
    is_v1: bool

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This process and the ones that it starts are in the group during the block."""
        (self.place / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self.home / "cgroup.procs").write_text(str(os.getpid()))

    def killed(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        name = "memory.oom_control" if self.is_v1 else "memory.events"
        fields = dict(line.split(" ", 1) for line in (self.place / name).read_text().splitlines())
        return int(fields.get("oom_kill", "0"))

    def most(self) -> int:
        """The most bytes that were charged to the group so far, page cache included; 0: not counted
        by this kernel.
        """
        name = "memory.max_usage_in_bytes" if self.is_v1 else "memory.peak"
        with contextlib.suppress(FileNotFoundError):
            return int((self.place / name).read_text())
        return 0


def _home() -> tuple[Path, bool]:
    """The directory of this process's group that bounds memory, and whether it is of version 1."""
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
    """A group that may take so many bytes, without swap."""
    home, is_v1 = _home()
    group = MemoryGroup(home / f"ocifs-test-{os.getpid()}-{time.monotonic_ns()}", home, is_v1)
    group.place.mkdir()
    try:
        (group.place / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit))
        with contextlib.suppress(OSError):  # a kernel that does not count swap has none to give
            swap = ("memory.memsw.limit_in_bytes", limit) if is_v1 else ("memory.swap.max", 0)
            (group.place / swap[0]).write_text(str(swap[1]))
        yield group
    finally:
        _remove(group.place)


def _remove(place: Path) -> None:
    """A group stays busy for a moment after its last process has ended."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            place.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # the kernel reports nothing to wait for
        else:
            return
