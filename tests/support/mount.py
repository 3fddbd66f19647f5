"""A real mount in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Mounted:
    """A mount and the process behind it."""

    path: Path
    process: subprocess.Popen[bytes]
    cache: Path

    def kill(self) -> None:
        """End the daemon as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def run_ocifs(*arguments: str, cache: Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run the command line with a cache of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "ocifs", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=check)


@contextmanager
def mounted(source: str, where: Path, cache: Path, options: Sequence[str] = ()) -> Iterator[Mounted]:
    """Mount a source for the length of the block; whatever happens, no mount and no process is left."""
    where.mkdir(exist_ok=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "ocifs", "mount", "-f", *options, source, str(where)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        _wait(process, where)
        yield Mounted(where, process, cache)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(where)], check=False, capture_output=True)


def _wait(process: subprocess.Popen[bytes], where: Path) -> None:
    """Until the mount answers: its root has another device than the directory above it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"ocifs ended: {process.stderr.read().decode()}")
        try:
            if where.stat().st_dev != where.parent.stat().st_dev:
                return
        except OSError:
            pass
        time.sleep(0.02)  # there is no event to wait for: the kernel's mount table tells nobody
    raise AssertionError("the mount does not answer")
