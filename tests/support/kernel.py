"""Tests of the kernel's caches, on a machine where other programs may drop them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

SECONDS = 120.0  # no new attempt begins after this time
COUNTERS = re.compile(
    r"^(?:drop_pagecache|drop_slab|pgsteal_\w+|slabs_scanned) (\d+)$", re.MULTILINE
)


def losses() -> list[str]:
    """The kernel's counters of requested drops and of reclaimed memory."""
    return COUNTERS.findall(Path("/proc/vmstat").read_text())


def with_kernel_caches(attempt: Callable[[int], None]) -> None:
    """Call `attempt` with 0, 1, 2, … until it succeeds.

    A failure counts only if the kernel dropped nothing during the attempt.
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
