"""Without new threads, work waits for one, and background tasks never end their nursery."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import trio

from ocifs.concurrency import guarded, in_thread
from ocifs.errors import DeadlineExceeded, NotFound, Unreachable

REFUSED = """
import sys, threading, trio
from ocifs.concurrency import in_thread
left = int(sys.argv[1])
start = threading.Thread.start
def refuse(self):
    global left
    left -= 1
    if left >= 0:
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = refuse
clock = trio.testing.MockClock(autojump_threshold=0.01)
print(trio.run(in_thread, lambda: "done", clock=clock))
"""


def run_refused(times: int) -> subprocess.CompletedProcess[str]:
    """In a process of its own: one that has idle threads already would use these."""
    command = [sys.executable, "-c", "import trio.testing\n" + REFUSED, str(times)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("times", [1, 3, 100])
def test_work_waits_for_a_thread(times: int) -> None:
    assert run_refused(times).stdout == "done\n"


def test_without_threads_for_a_minute_it_is_an_error_of_ours() -> None:
    assert (
        f"{DeadlineExceeded.__name__}: the system does not allow this process another thread"
        in run_refused(10_000).stderr
    )


async def test_an_error_of_the_work_is_raised_at_once() -> None:
    def work() -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        await in_thread(work)


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("gone"),
        NotFound("no"),
        OSError(5, "EIO"),
        RuntimeError("can't start new thread"),
        MemoryError(),
        ValueError("a bug"),
        ExceptionGroup("several", [OSError(5, "EIO"), Unreachable("gone")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_a_background_task_ends_the_task_alone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(given: Exception) -> None:
        raise given

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, "a test", work, error)
            await trio.sleep(0)
    assert [record.levelno for record in caplog.records] in ([logging.WARNING], [logging.ERROR])
