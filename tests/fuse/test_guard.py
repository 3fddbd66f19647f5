"""Who wants to leave, and what comes of an operation."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyfuse3
import pytest
import trio

from ocifs.errors import NotFound, Unreachable
from ocifs.fuse.guard import Guard, is_interrupted
from ocifs.fuse.stats import Stats
from ocifs.settings import Timing


@contextmanager
def stopped(program: str) -> Iterator[int]:
    """A process that ran a program's first lines and is stopped: a signal that is sent to it stays
    pending.
    """
    command = [
        sys.executable,
        "-c",
        f"{program}\nprint('x', flush=True)\nimport time; time.sleep(60)",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid
        finally:
            process.kill()


def test_a_caller_without_signals_stays() -> None:
    assert not is_interrupted(os.getpid())


def test_a_caller_with_a_signal_to_act_on_is_interrupted() -> None:
    with stopped("") as pid:
        assert not is_interrupted(pid)
        os.kill(pid, signal.SIGTERM)
        assert is_interrupted(pid)


@pytest.mark.parametrize(
    "program",
    [
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
    ],
    ids=["ignored", "blocked"],
)
def test_a_signal_that_is_ignored_or_blocked_changes_nothing(program: str) -> None:
    with stopped(program) as pid:
        os.kill(pid, signal.SIGTERM)
        assert not is_interrupted(pid)


def test_who_cannot_be_seen_is_not_taken_to_leave() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not is_interrupted(process.pid)


async def test_the_watchman_frees_a_caller_that_was_signalled(autojump_clock) -> None:
    with stopped("") as pid:
        guard = Guard(Timing(), Stats())
        os.kill(pid, signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.watch)
            with pytest.raises(pyfuse3.FUSEError) as caught:
                await guard.run("lookup", pid, trio.sleep_forever)
            nursery.cancel_scope.cancel()
    assert caught.value.errno == errno.EINTR
    assert trio.current_time() < 0.5  # the half second in which a caller must be free


async def test_an_operation_without_progress_ends_at_its_deadline(autojump_clock) -> None:
    stats = Stats()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Guard(Timing(), stats).run("read", 0, trio.sleep_forever)
    assert caught.value.errno == errno.ETIMEDOUT
    assert trio.current_time() == pytest.approx(Timing().timeout)
    assert [trouble.errno for trouble in stats.last] == ["ETIMEDOUT"]


async def test_what_is_at_hand_is_given_and_nothing_else_begun() -> None:
    stats = Stats()
    guard = Guard(Timing(), stats)
    assert await guard.run("read", 0, trio.sleep_forever, lambda: b"") == b""
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await guard.run("read", 0, trio.sleep_forever, lambda: {}[1])
    assert caught.value.errno == errno.EIO
    assert await guard.run("read", 0, lambda: _later(b"x"), lambda: None) == b"x"
    assert stats.operations["read"] == 3


async def _later(value: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return value


async def test_errors_become_errnos_and_absence_is_not_noted() -> None:
    stats = Stats()
    guard = Guard(Timing(), stats)
    for error, number in ((NotFound("x"), errno.ENOENT), (Unreachable("x"), errno.EHOSTUNREACH)):

        async def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(pyfuse3.FUSEError) as caught:
            await guard.run("lookup", 0, fail)
        assert caught.value.errno == number
    assert [trouble.errno for trouble in stats.last] == ["EHOSTUNREACH"]
    assert stats.operations["lookup"] == 2
    assert stats.unexpected == 0
