"""The guard that runs every handler: deadlines, interrupted callers, errnos, logs and counters.

`Operations` calls `run` or `run_sync` for each request. `watch` is a background task of the mount.
Everything runs in the event loop.

pyfuse3 ends the mount at the first exception other than FUSEError. It also ignores INTERRUPT, so a
program that waits in lookup or open could not be killed before the handler returns. Therefore
`watch` looks several times a second at operations that have taken long:

- It cancels an operation if its caller has a signal that would end it, which is read from /proc.
- It answers read-ahead early if slow hosts use up the kernel's limit (`background.py`).

State: the operations in progress, and `Stats`, which `.ocifs/` shows.

Rules that hold here:

- A handler raises FUSEError and nothing else.
- An unexpected exception is logged with its traceback, counted, and becomes EIO.
- NotFound, NoAttribute and Interrupted are normal, and are neither logged nor counted as errors.
"""

from __future__ import annotations

import errno
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import pyfuse3
import trio

from ocifs.concurrency import Deadline, deadline, guarded
from ocifs.errors import Interrupted, NoAttribute, NotFound, OcifsError, Unreachable
from ocifs.fuse import background
from ocifs.fuse.errno import errno_of, name_of
from ocifs.fuse.stats import Stats
from ocifs.settings import Timing
from ocifs.telemetry import TRACE, begin_operation

T = TypeVar("T")
P = ParamSpec("P")

log = logging.getLogger("ocifs.fuse")

# `watch` looks this often, at operations that are older than half of it. A caller must be released
# within half a second of its signal.
LOOK_EVERY = 0.15


# The signals that end a waiting program. It would handle others, such as SIGWINCH or SIGCHLD, and
# wait again.
_LEAVING = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LEAVING_MASK = sum(1 << (number - 1) for number in _LEAVING)


@dataclass(slots=True, eq=False)
class _Operation:
    """An operation in progress. `pid` is the thread that waits for it, or 0 if unknown.

    `on_early` is called if it is answered early. If it is None, it must not be.
    """

    pid: int
    waiting: Deadline
    began: float
    on_early: Callable[[], None] | None = None
    early: bool = False


class _Early(Exception):
    """The operation is read-ahead, and is answered before its data has arrived."""


class Guard:
    """Runs handlers. `watch` must run at the same time."""

    def __init__(self, timing: Timing, stats: Stats) -> None:
        self._timing = timing
        self._stats = stats
        self._running: set[_Operation] = set()
        self.background_limit = background.DEFAULT
        # The number of operations so far, which identifies them in the log.
        self._begun = 0

    def busy(self) -> bool:
        """Whether an operation is waiting."""
        return bool(self._running)

    def count_read(self, count: int) -> None:
        """Count bytes that were returned to a reader."""
        self._stats.bytes_read += count

    async def run(
        self,
        name: str,
        pid: int,
        work: Callable[[], Awaitable[T]],
        nowait: Callable[[], T | None] | None = None,
        on_early: Callable[[], None] | None = None,
    ) -> T:
        """Return the result of `nowait` if it is not None, else that of `work`. Raises FUSEError.

        `nowait` runs without a deadline, which costs as much as an answer from memory.
        """
        began = self._begin(name)
        try:
            if nowait is not None:
                found = nowait()
                if found is not None:
                    return found
            return await self._run_with_deadline(pid, work, on_early)
        # trio's Cancelled is a BaseException: the end of the mount does not become an errno.
        except Exception as error:
            raise self._fuse_error(name, error) from None
        finally:
            self._stats.seconds[name] += time.perf_counter() - began

    def run_sync(self, name: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run a handler that never waits. Raises FUSEError."""
        began = self._begin(name)
        try:
            return work(*arguments, **named)
        except Exception as error:
            raise self._fuse_error(name, error) from None
        finally:
            self._stats.seconds[name] += time.perf_counter() - began

    def _begin(self, name: str) -> float:
        self._stats.operations[name] += 1
        self._begun += 1
        begin_operation(self._begun)
        if log.isEnabledFor(TRACE):
            log.log(TRACE, "%s", name)
        return time.perf_counter()

    def _fuse_error(self, name: str, error: Exception) -> pyfuse3.FUSEError:
        """The FUSEError for an exception, which is counted and logged unless it is normal."""
        if isinstance(error, pyfuse3.FUSEError):
            return error
        if isinstance(error, _Early):
            # No program receives it: the kernel drops the read-ahead.
            return pyfuse3.FUSEError(errno.EAGAIN)
        if isinstance(error, (NotFound, NoAttribute, Interrupted)):
            return pyfuse3.FUSEError(errno_of(error))
        if isinstance(error, OcifsError):
            return self._record_error(name, error)
        self._stats.unexpected += 1
        text = f"unexpected {type(error).__name__}: {error}"
        self._stats.record_error(name, "EIO", text, "this is a bug: please report it")
        log.exception("unexpected error in %s", name)
        return pyfuse3.FUSEError(errno.EIO)

    async def _run_with_deadline(
        self, pid: int, work: Callable[[], Awaitable[T]], on_early: Callable[[], None] | None
    ) -> T:
        with deadline(self._timing.timeout, self._timing.max_wait) as waiting:
            operation = _Operation(pid, waiting, trio.current_time(), on_early)
            self._running.add(operation)
            try:
                return await work()
            finally:
                self._running.discard(operation)
        # The scope was cancelled by `watch`, not by its deadline.
        raise _Early if operation.early else Interrupted("the caller was interrupted")

    def _record_error(self, name: str, error: OcifsError) -> pyfuse3.FUSEError:
        number = errno_of(error)
        self._stats.record_error(name, name_of(number), str(error), error.hint)
        # An outage is logged once by the source, not for each operation.
        level = logging.DEBUG if isinstance(error, Unreachable) else logging.INFO
        log.log(level, "%s: %s: %s", name, name_of(number), error)
        return pyfuse3.FUSEError(number)

    async def watch(self) -> None:
        """Release interrupted callers until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY)
            await guarded("looking at callers", self._check_callers)

    async def _check_callers(self) -> None:
        self._answer_early()
        old = trio.current_time() - LOOK_EVERY / 2
        for operation in [each for each in self._running if each.began < old]:
            if operation.pid and is_interrupted(operation.pid):
                operation.waiting.scope.cancel()

    def _answer_early(self) -> None:
        reads = [operation for operation in self._running if operation.on_early is not None]
        for operation in background.excess_reads(reads, trio.current_time(), self.background_limit):
            assert operation.on_early is not None
            operation.on_early()
            operation.early = True
            # It stays in `_running` until its task runs, and must not be selected twice.
            operation.on_early = None
            operation.waiting.scope.cancel()


def is_interrupted(pid: int) -> bool:
    """Whether a thread has a pending signal that would end it (proc_pid_status(5)).

    A thread that waits in the kernel still exists.
    """
    try:
        with open(
            f"/proc/{pid}/status", "rb"
        ) as file:  # a file of the kernel's: it never waits for a disk
            text = file.read()
    except OSError:
        return False
    masks = {}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        if name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn"):
            masks[name] = int(value, 16)
    pending = masks.get(b"SigPnd", 0) | masks.get(b"ShdPnd", 0)
    # A handled signal counts, since its handler runs after the answer. A blocked or ignored one
    # does not end the wait.
    return bool(pending & _LEAVING_MASK & ~masks.get(b"SigBlk", 0) & ~masks.get(b"SigIgn", 0))
