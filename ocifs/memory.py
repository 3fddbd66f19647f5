"""What this process takes from the system: memory, which it gives back, and file descriptors.

Called once, when a mount starts. In a mount, mebibytes and many small objects come and go all the time.

Rules that hold here: what the system does not offer (another C library than glibc, a hard limit) is done without.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from contextlib import suppress

from ocifs.settings import MIB

# mallopt(3), <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let the allocator use freed memory again, up to 64 MiB of it, where it would give it back and take new pages at once.

    Of 1 GiB that was read through a mount this made 10,000 page faults out of 110,000.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in ((_M_MMAP_THRESHOLD, 8 * MIB), (_M_TRIM_THRESHOLD, 64 * MIB), (_M_TOP_PAD, 1 * MIB)):
        mallopt(option, value)


# A listing makes tens of thousands of objects that stay and are in no cycle: by Python's default, 700 of them begin a collection.
_YOUNG, _MIDDLE, _OLD = 20_000, 20, 20


def collect_seldom() -> None:
    """Look for cycles of objects seldom, and never among what is here now: nearly everything is freed by its count of references.

    Listing 12,000 entries had one collection of everything, of 0.1 s.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


_DESCRIPTORS = 65_536


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors, 1,024 by default: each open blob takes two, each connection one. select(2) is not used here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
