"""Tunes the process: the C allocator, the garbage collector, and the limit of file descriptors.

Called once when a mount starts, and by worker threads after memory-intensive work. A mount
allocates and frees buffers of a MiB and many small objects all the time.

Rules that hold here: features that the system does not have (glibc, a higher limit) are skipped.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ocifs.settings import KIB, MIB, Settings

# mallopt(3), <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def tune_malloc() -> None:
    """Set the options of malloc: reuse of freed memory, arenas, and the threshold for mmap.

    - 4 MiB of freed memory is reused instead of returned to the system. Reading 1 GiB through a
      mount then causes 10,000 page faults instead of 110,000.
    - Two arenas serve all threads. By default there are eight for each processor, and each retains
      freed memory.
    - Allocations larger than one read of a socket are mapped. Among small objects, spans of
      varying length would leave holes: 40 MB for 16 readers.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    limits = (
        (_M_MMAP_THRESHOLD, 320 * KIB),
        (_M_TRIM_THRESHOLD, 4 * MIB),
        (_M_TOP_PAD, 1 * MIB),
        (_M_ARENA_MAX, 2),
    )
    for option, value in limits:
        mallopt(option, value)


def trim_memory() -> None:
    """Return freed memory to the system, including holes between allocations.

    Blocks for some milliseconds, without the GIL. Called after work that needed much memory once:
    indexing a layer leaves up to 40 MB of holes, which later work uses only in part.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


# A listing creates tens of thousands of long-lived objects without cycles. By default, every 700 of
# them start a collection.
_YOUNG, _MIDDLE, _OLD = 20_000, 20, 20


def tune_garbage_collector() -> None:
    """Run the garbage collector rarely, and never for the objects that exist now.

    Almost all objects are freed by reference counting. With the defaults, a listing of 12,000
    entries caused a full collection of 0.1 s.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


_DESCRIPTORS = 65_536


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors from its default of 1,024.

    An open blob needs two, a connection one. ocifs does not use select(2), which the default is
    meant for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < target:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


_CGROUPS = Path("/sys/fs/cgroup")
# A group with less memory gets smaller windows and buffers (docs/decisions/0212-memory.md).
_ROOMY = 512 * MIB
_WINDOW, _SPARE_SHARE = 32 * MIB, 4


def memory_limit(groups: str, root: Path = _CGROUPS) -> int | None:
    """The memory limit of the control groups in `groups`, a /proc/PID/cgroup (cgroups(7)).

    None if there is no limit. Blocks.
    """
    limits = []
    for line in groups.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        # The line of version 2 lists no controllers: `0::/PATH`.
        top, name = (
            (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
        )
        if controllers and "memory" not in controllers.split(","):
            continue
        group = top / path.lstrip("/")
        # The limits of all enclosing groups apply.
        for directory in (group, *group.parents):
            if not directory.is_relative_to(root):
                break
            # Without a limit, the file of version 2 contains `max`.
            with suppress(OSError, ValueError):
                limits.append(int((directory / name).read_text()))
    least = min(limits, default=None)
    # Without a limit, version 1 reports the largest multiple of a page below 2^63.
    return None if least is None or least >= 1 << 50 else least


def fit_to_limit(settings: Settings, limit: int | None) -> Settings:
    """Reduce the settings for a process with a memory limit.

    Layers that need a large window are rejected, and less is buffered while the disk is full.
    """
    if limit is None or limit >= _ROOMY:
        return settings
    window = min(settings.limits.layer_window, _WINDOW)
    spare = min(settings.cache.memory_bytes, limit // _SPARE_SHARE)
    return replace(
        settings,
        limits=replace(settings.limits, layer_window=window),
        cache=replace(settings.cache, memory_bytes=spare),
    )


def fit_to_machine(settings: Settings) -> Settings:
    """Reduce the settings according to this process's control groups. Blocks."""
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return settings
    return fit_to_limit(settings, memory_limit(groups))
