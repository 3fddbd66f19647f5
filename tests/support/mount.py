"""A real mount, with its daemon in a separate process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.support import starter
from tests.support.leaks import note
from tests.support.starter import Process

START_SECONDS, END_SECONDS = 60.0, 60.0  # long enough for a busy machine
NOTED = 1 << 16  # bytes of a command's output that are searched for secrets


@dataclass
class Mounted:
    """A mount and its daemon.

    `said` is the daemon's standard error, after its end.
    """

    path: Path
    process: Process
    cache: Path
    said: bytes = b""

    def kill(self) -> None:
        """Kill the daemon, as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


def run_ocifs(
    *arguments: str, cache: Path, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of ocifs with its own cache."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = starter.run(arguments, environment)
    note(f"ocifs {' '.join(arguments)}", done.stderr + done.stdout[:NOTED])
    if check:
        done.check_returncode()
    return done


@contextmanager
def mounted(
    source: str | Sequence[str],
    where: Path,
    cache: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Mounted]:
    """Mount one or more sources for the length of the block.

    The mount and the process always end with the block.
    """
    where.mkdir(exist_ok=True)
    environment = {**environment, "XDG_CACHE_HOME": str(cache)}
    sources = [source] if isinstance(source, str) else source
    arguments = ["mount", "-f", "-v", *options, *sources, str(where)]
    said = tempfile.TemporaryFile()  # noqa: SIM115 (closed below; a pipe could fill up)
    process = starter.start(arguments, environment, (0, 1, said.fileno()))
    note("arguments", " ".join(arguments))
    mount = Mounted(where, process, cache)
    try:
        _wait(process, where, said)
        yield mount
    finally:
        if process.poll() is None:
            _note(process, where)
            process.terminate()
        ended = _ended(process)
        subprocess.run(
            ["fusermount3", "-u", "-z", "-q", str(where)], check=False, capture_output=True
        )
        # fusermount3 does not unmount EROFS or an overlay, which a killed daemon leaves.
        if os.geteuid() == 0 and os.path.ismount(where):
            run_ocifs("umount", "--lazy", str(where), cache=cache, check=False)
        said.seek(0)
        mount.said = said.read()
        note(f"the mount of {source}", mount.said)
        said.close()
        assert ended, f"the mount of {source} did not end within {END_SECONDS:g} s of SIGTERM"


def _ended(process: Process) -> bool:
    """Wait for a terminated process to end, and kill it after a deadline. Whether it ended."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def wait_until_blocked(process: subprocess.Popen[bytes]) -> None:
    """Wait until a new program is blocked, such as a reader that waits for the daemon.

    The kernel has no event for this, so the state of the program is sampled until it has been
    asleep several times in a row.
    """
    deadline, asleep = time.monotonic() + START_SECONDS, 0
    while asleep < 10:
        assert process.poll() is None, "the program has ended"
        assert time.monotonic() < deadline, "the program is busy"
        program, _, state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")
        is_running = program.partition("(")[2] in os.path.basename(str(process.args[0]))  # type: ignore[index]
        asleep = asleep + 1 if is_running and state.split()[0] in "SD" else 0
        time.sleep(0.02)


def _note(process: Process, where: Path) -> None:
    """Record the reports of a mount and its command line, which are searched for secrets."""
    note("arguments", Path(f"/proc/{process.pid}/cmdline").read_bytes())
    for name in ("status.json", "errors"):
        with contextlib.suppress(OSError):
            note(name, (where / ".ocifs" / name).read_bytes())


def _wait(process: Process, where: Path, said: BinaryIO) -> None:
    """Wait until the mount answers: its root has another device than its parent directory."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said.seek(0)
            raise AssertionError(f"ocifs ended: {said.read().decode()}")
        try:
            if where.stat().st_dev != where.parent.stat().st_dev:
                return
        except OSError:
            pass
        time.sleep(0.02)  # there is no event for this
    raise AssertionError("the mount does not answer")
