"""The bounds on one input of the fuzz tests: CPU seconds and resident memory of this process.

Rules that hold here:
- Memory is the peak of the process (VmHWM), because Python does not count allocations of C
  libraries.
- An input that does not end is interrupted. This needs the main thread.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SECONDS = 5.0  # of CPU. Inputs have some KiB, and nearly all take milliseconds
MEBIBYTES = 192  # above the memory at the start

_RESET_PEAK = "5"  # written to /proc/PID/clear_refs (proc(5))


class OutOfBounds(Exception):
    """An input exceeded the bounds."""


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, mebibytes: int = MEBIBYTES) -> Iterator[None]:
    """Raise OutOfBounds if the block costs more."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise OutOfBounds(f"not done after {seconds:g} s of CPU")

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before, began = _memory("VmRSS"), time.process_time()
    previous = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    took, more = time.process_time() - began, _memory("VmHWM") - before
    if took > seconds:
        raise OutOfBounds(f"took {took:.1f} s of CPU")
    if more > mebibytes:
        raise OutOfBounds(f"took {more} MiB of memory")


def _memory(field: str) -> int:
    """A figure of this process in MiB."""
    found = re.search(rf"{field}:\s+([0-9]+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) >> 10
