"""Closing a file asks the daemon nothing: flush is answered in the one way that lets the kernel
stop asking.
"""

from __future__ import annotations

import errno

import pyfuse3
import pytest
import trio

from ocifs.fuse.guard import Guard
from ocifs.fuse.operations import Operations
from ocifs.fuse.stats import Stats
from ocifs.settings import Timing
from ocifs.tree.static import StaticDirectory


def test_flush_is_answered_so_that_the_kernel_asks_no_more() -> None:
    timing = Timing()
    operations = Operations(StaticDirectory("root", ()), Guard(timing, Stats()), timing)
    with pytest.raises(pyfuse3.FUSEError) as refused:
        trio.run(operations.flush, 1)
    assert refused.value.errno == errno.ENOSYS
