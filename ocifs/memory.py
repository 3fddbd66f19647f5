"""What this process takes from the system: memory, which it gives back, and file descriptors.

Called when a mount starts, and by worker threads after large work. In a mount, mebibytes and many
small objects come and go all the time.

Rules that hold here: what the system does not offer (another C library than glibc, a hard limit) is
done without.
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
    """Let the allocator use freed memory again, up to 4 MiB of it, where it would give it back and
    take new pages at once.

    Of 1 GiB that was read through a mount this made 10,000 page faults out of 110,000. Two arenas
    serve all threads: by default there are eight for each processor, each of which keeps freed
    memory of its own. What is longer than what is read from a socket at a time comes from the
    system: spans of all lengths between small objects leave holes that nothing fits into, 40 MB of
    them for 16 readers.
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
    """Return freed memory to the system, also from between what is used.

    Blocks for some milliseconds, without the interpreter's lock.

    After work that took much memory once: unpacking a layer leaves up to 40 MB in pieces, which
    later work uses only in part.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


# A listing makes tens of thousands of objects that stay and are in no cycle: by Python's default,
# 700 of them begin a collection.
_YOUNG, _MIDDLE, _OLD = 20_000, 20, 20


def tune_garbage_collector() -> None:
    """Look for cycles of objects seldom, and never among what is here now: nearly everything is
    freed by its count of references.

    Listing 12,000 entries had one collection of everything, of 0.1 s.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


_DESCRIPTORS = 65_536


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors, 1,024 by default: each open blob takes two, each
    connection one. select(2) is not used here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


_CGROUPS = Path("/sys/fs/cgroup")
_ROOMY = 512 * MIB
_WINDOW, _SPARE_SHARE = 32 * MIB, 4


def memory_limit(groups: str, root: Path = _CGROUPS) -> int | None:
    """The memory that a process may take whose /proc/PID/cgroup (cgroups(7)) is given; None: as
    much as there is. Blocks.
    """
    limits = []
    for line in groups.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        place, name = (
            (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
        )
        if controllers and "memory" not in controllers.split(","):
            continue
        group = place / path.lstrip("/")
        for each in (group, *group.parents):
            if not each.is_relative_to(root):
                break
            with suppress(OSError, ValueError):
                limits.append(int((each / name).read_text()))
    least = min(limits, default=None)
    return None if least is None or least >= 1 << 50 else least


def fit_to_limit(settings: Settings, limit: int | None) -> Settings:
    """Settings for a process with little memory: it refuses layers that need much, and keeps less
    of a full disk's blobs.
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
    """Settings for the memory that this process may take. Blocks."""
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return settings
    return fit_to_limit(settings, memory_limit(groups))
