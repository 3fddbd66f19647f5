"""The one guard round every handler: deadlines, callers that were interrupted, errors into errnos,
what is logged and counted.

pyfuse3 ends the mount at the first exception that is no FUSEError, and knows no INTERRUPT: a caller
that waits in lookup or open cannot be killed until the handler answers. So a watchman looks at the
callers of operations that take long, and cancels the operation of one that has a signal to act on,
or is gone.

Rules that hold here: a handler raises FUSEError and nothing else; an exception that nobody thought
of is logged with its traceback, counted, and EIO; ENOENT and what a program asks all day are not
logged.
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

# The watchman looks this often, at operations older than that: together well under the half second
# in which a caller must be free.
LOOK_EVERY = 0.15


# What makes a waiting program leave. Any other signal (a resized window, a child's end) it would
# handle and go on waiting.
_LEAVING = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LEAVING_MASK = sum(1 << (number - 1) for number in _LEAVING)


@dataclass(slots=True, eq=False)
class _Operation:
    """An operation under way. `pid`: the thread that waits for it, or 0 where that is not known.

    `on_early`: called when it is answered early; None: it must not be.
    """

    pid: int
    waiting: Deadline
    began: float
    on_early: Callable[[], None] | None = None
    early: bool = False


class _Early(Exception):
    """The operation is read-ahead, and is answered before its host has answered."""


class Guard:
    """Runs handlers. `watch` must run beside them."""

    def __init__(self, timing: Timing, stats: Stats) -> None:
        self._timing = timing
        self._stats = stats
        self._running: set[_Operation] = set()
        self.background_limit = background.DEFAULT
        self._begun = 0  # operations, which numbers them in the log

    def busy(self) -> bool:
        """Whether somebody waits for an operation."""
        return bool(self._running)

    def count_read(self, count: int) -> None:
        """Count bytes that a reader got."""
        self._stats.bytes_read += count

    async def run(
        self,
        name: str,
        pid: int,
        work: Callable[[], Awaitable[T]],
        nowait: Callable[[], T | None] | None = None,
        on_early: Callable[[], None] | None = None,
    ) -> T:
        """What `work` gives, or `at_hand` where that gives something, without waiting; raises
        FUSEError for whatever they raise.

        A deadline and a number in the list of what is under way cost as much as an answer from
        memory.
        """
        began = self._begin(name)
        try:
            if nowait is not None:
                found = nowait()
                if found is not None:
                    return found
            return await self._run_with_deadline(pid, work, on_early)
        except Exception as error:
            raise self._fuse_error(name, error) from None
        finally:
            self._stats.seconds[name] += time.perf_counter() - began

    def run_sync(self, name: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The same for what does not wait."""
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
        """The FUSEError for whatever was raised; counted, and logged where a person would want to
        know.
        """
        if isinstance(error, pyfuse3.FUSEError):
            return error
        if isinstance(error, _Early):
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
        # The scope was cancelled, and not by its deadline.
        raise _Early if operation.early else Interrupted("the caller was interrupted")

    def _record_error(self, name: str, error: OcifsError) -> pyfuse3.FUSEError:
        number = errno_of(error)
        self._stats.record_error(name, name_of(number), str(error), error.hint)
        # That a registry is away is said once, where it is noticed, and not by each operation that
        # meets it.
        level = logging.DEBUG if isinstance(error, Unreachable) else logging.INFO
        log.log(level, "%s: %s: %s", name, name_of(number), error)
        return pyfuse3.FUSEError(number)

    async def watch(self) -> None:
        """Free callers that were interrupted, for ever."""
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
            operation.on_early = None
            operation.waiting.scope.cancel()


def is_interrupted(pid: int) -> bool:
    """Whether a thread has a signal that makes it leave (proc_pid_status(5)).

    One that waits in the kernel cannot be gone.
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
    return bool(pending & _LEAVING_MASK & ~masks.get(b"SigBlk", 0) & ~masks.get(b"SigIgn", 0))
