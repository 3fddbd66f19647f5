"""Laws about the kernel's caches, on a machine where something else may drop them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

SECONDS = 120.0  # for as long, further attempts are made
COUNTERS = re.compile(
    r"^(?:drop_pagecache|drop_slab|pgsteal_\w+|slabs_scanned) (\d+)$", re.MULTILINE
)


def losses() -> list[str]:
    """The kernel's counters of what it dropped when it was asked to, and of what it reclaimed for
    want of memory.
    """
    return COUNTERS.findall(Path("/proc/vmstat").read_text())


def with_kernel_caches(attempt: Callable[[int], None]) -> None:
    """Call `attempt` with 0, 1, 2, … until it succeeds, or fails although the kernel has dropped
    nothing meanwhile.
    """
    deadline = time.monotonic() + SECONDS
    for number in count():
        before = losses()
        try:
            attempt(number)
        except AssertionError:
            if losses() == before or time.monotonic() > deadline:
                raise
        else:
            return
