"""Wait for states of the machine that have no event. Tests call this from their own thread."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

WAIT_SECONDS = 60.0  # long enough for a busy machine


def waited(is_over: Callable[[], bool]) -> bool:
    """Whether a state is reached before the deadline."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if is_over():
            return True
        time.sleep(0.02)  # there is no event for this
    return False


def unmount(place: Path) -> None:
    """Unmount a file system that was in use until a moment ago.

    The kernel closes the files of a detached EROFS mount or loop device in a work queue, after the
    process that used them has ended. Until then the file system below is busy (EBUSY).
    Raises CalledProcessError if it stays in use.
    """

    def is_unmounted() -> bool:
        return not subprocess.run(["umount", place], capture_output=True, check=False).returncode

    if not waited(is_unmounted):
        subprocess.run(["umount", place], check=True)
