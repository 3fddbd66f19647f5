"""A real mount in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.support.leaks import note

START_SECONDS, END_SECONDS = 60.0, 60.0  # generous: a machine may be busy
NOTED = 1 << 16  # bytes of what a command printed that are looked through for secrets


@dataclass
class Mounted:
    """A mount and the process behind it.

    `said`: what that wrote to standard error, once it has ended.
    """

    path: Path
    process: subprocess.Popen[bytes]
    cache: Path
    said: bytes = b""

    def kill(self) -> None:
        """End the daemon as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


def run_ocifs(
    *arguments: str, cache: Path, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line with a cache of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "ocifs", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
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
    """Mount a source, or several, for the length of the block; whatever happens, no mount and no
    process is left.
    """
    where.mkdir(exist_ok=True)
    environment = {**environment, "XDG_CACHE_HOME": str(cache)}
    sources = [source] if isinstance(source, str) else source
    command = [sys.executable, "-m", "ocifs", "mount", "-f", "-v", *options, *sources, str(where)]
    said = tempfile.TemporaryFile()  # noqa: SIM115 (closed below; not a pipe, which nobody would empty)
    process = subprocess.Popen(command, env=environment, stderr=said)
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
        said.seek(0)
        mount.said = said.read()
        note(f"the mount of {source}", mount.said)
        said.close()
        assert ended, f"the mount of {source} did not end within {END_SECONDS:g} s of SIGTERM"


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process that was asked to end does so; otherwise it is killed."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def wait_until_blocked(process: subprocess.Popen[bytes]) -> None:
    """Until a program that was just started waits for something, as a caller of a mount waits for
    its daemon.

    Nothing reports that, so this looks for a program that has slept several times in a row.
    """
    deadline, asleep = time.monotonic() + START_SECONDS, 0
    while asleep < 10:
        assert process.poll() is None, "the program has ended"
        assert time.monotonic() < deadline, "the program is busy"
        program, _, state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")
        is_running = program.partition("(")[2] in os.path.basename(str(process.args[0]))  # type: ignore[index]
        asleep = asleep + 1 if is_running and state.split()[0] in "SD" else 0
        time.sleep(0.02)


def _note(process: subprocess.Popen[bytes], where: Path) -> None:
    """What a mount says of itself, and what others see of its process, for the end of the run to
    look for secrets in.
    """
    note("arguments", Path(f"/proc/{process.pid}/cmdline").read_bytes())
    for name in ("status.json", "errors"):
        with contextlib.suppress(OSError):
            note(name, (where / ".ocifs" / name).read_bytes())


def _wait(process: subprocess.Popen[bytes], where: Path, said: BinaryIO) -> None:
    """Until the mount answers: its root has another device than the directory above it."""
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
        time.sleep(0.02)  # there is no event to wait for: the kernel's mount table tells nobody
    raise AssertionError("the mount does not answer")
