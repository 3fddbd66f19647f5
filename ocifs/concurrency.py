"""Deadlines, work that several callers share, and worker threads.

Used by all rooms, and independent of registries. Functions run in the event loop unless stated
otherwise.

A wait in ocifs ends when nothing has arrived for a while, or after a longer time in all. The caller
sets these limits with `deadline`, and the code that receives bytes, possibly many layers below,
calls `note_progress`. A context variable connects the two. If the work runs in a task of its own
(`SingleFlight`), its progress is passed on to every caller that waits for it.

- Every wait happens within a `deadline`, or has another bound.
- Work that several callers may wait for belongs to a nursery that outlives each of them. A caller
  that leaves does not affect the others.
- A failure of shared work is raised to every waiter, once.
- An exception in a background task never reaches its nursery (`guarded`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar, TypeVarTuple, Unpack, cast

import trio

from ocifs.errors import DeadlineExceeded, OcifsError

log = logging.getLogger("ocifs")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
K = TypeVar("K", bound=Hashable)


class Waiter(Protocol):
    """A caller that waits, and is notified of progress."""

    def progress(self) -> None:
        """Bytes arrived: the time without progress starts again."""
        ...

    def waits_for(self, host: str) -> None:
        """The work is waiting for a host."""
        ...


_waiting: ContextVar[Waiter | None] = ContextVar("waiting", default=None)


def note_progress() -> None:
    """Notify the waiter of this task that its work advances. Cheap; call it when bytes arrive."""
    waiting = _waiting.get()
    if waiting is not None:
        waiting.progress()


def note_waiting_for(host: str) -> None:
    """Record the host that the work of this task is waiting for, for its waiter."""
    waiting = _waiting.get()
    if waiting is not None:
        waiting.waits_for(host)


def current_waiter() -> Waiter | None:
    """The waiter of this task, so that another task or thread can notify it."""
    return _waiting.get()


SMALL = 64 << 10
"""Bytes that may be parsed or hashed in the event loop: at most two milliseconds of work."""


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """The result of pure work on `size` bytes, in a worker thread if there are many.

    A cancelled caller leaves at once, while the work runs to its end. So the work must be bounded.
    """
    if size <= SMALL:
        return work()
    return await in_thread(work, abandon_on_cancel=True)


class Deadline:
    """The Waiter of one caller: `timeout` seconds without progress, `max_wait` seconds in all.

    `host` is the host that it waits for, if any. `outer` is notified as well.
    """

    __slots__ = ("_end", "_outer", "_timeout", "host", "scope")

    def __init__(self, timeout: float, max_wait: float, outer: Waiter | None = None) -> None:
        self._outer = outer
        now = trio.current_time()
        self._timeout = timeout
        self._end = now + max_wait
        self.host: str | None = None
        self.scope = trio.CancelScope(deadline=min(now + timeout, self._end))

    def progress(self) -> None:
        # After the deadline has passed it stays, so that `deadline` can see that it has.
        if not self.scope.cancel_called:
            self.scope.deadline = min(trio.current_time() + self._timeout, self._end)
        if self._outer is not None:
            self._outer.progress()

    def waits_for(self, host: str) -> None:
        self.host = host
        if self._outer is not None:
            self._outer.waits_for(host)


@contextmanager
def deadline(timeout: float, max_wait: float) -> Iterator[Deadline]:
    """Bound everything awaited inside. Raises DeadlineExceeded when the time is up.

    The scope inside may also be cancelled for other reasons. The waiter outside this block is
    notified of progress as well.
    """
    limit = Deadline(timeout, max_wait, _waiting.get())
    token = _waiting.set(limit)
    try:
        with limit.scope:
            yield limit
    finally:
        _waiting.reset(token)
    if limit.scope.cancelled_caught and trio.current_time() >= limit.scope.deadline:
        raise DeadlineExceeded(
            f"timed out: no data for {timeout:g} s, or not complete within {max_wait:g} s"
        )


_THREADS_AGAIN = 0.1  # seconds between two attempts to start a thread
_THREADS_WAIT = 60.0  # seconds after which it is an error
_NO_THREAD = "the system does not allow this process another thread"
_THREADS_HINT = "raise the limit of tasks: pids.max, TasksMax or ulimit -u"


async def in_thread(
    work: Callable[[Unpack[Ts]], T],
    *arguments: *Ts,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Run blocking work in a worker thread. If the system has no thread to spare, wait for one.

    Raises the error of the work, or DeadlineExceeded after a minute without a thread.
    """
    end = trio.current_time() + _THREADS_WAIT
    started = False

    def run() -> T:
        nonlocal started
        started = True
        return work(*arguments)

    while True:
        try:
            return await trio.to_thread.run_sync(
                run, abandon_on_cancel=abandon_on_cancel, limiter=limiter
            )
        except RuntimeError:
            # Python raises RuntimeError if the system has no thread, and the work may raise one.
            if started:
                raise
            if trio.current_time() >= end:
                raise DeadlineExceeded(_NO_THREAD, hint=_THREADS_HINT) from None
        await trio.sleep(_THREADS_AGAIN)


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, from a worker thread. Waits and raises as `in_thread`."""
    end = time.monotonic() + _THREADS_WAIT
    while True:
        try:
            return thread.start()
        except RuntimeError:
            if thread.ident is not None:  # it was started before
                raise
            if time.monotonic() >= end:
                raise DeadlineExceeded(_NO_THREAD, hint=_THREADS_HINT) from None
        check_cancelled()
        time.sleep(_THREADS_AGAIN)


async def guarded(
    name: str, work: Callable[[Unpack[Ts]], Awaitable[None]], *arguments: *Ts
) -> None:
    """Run a background task. An exception ends it and is logged.

    It never reaches the nursery, which contains the whole mount.
    """
    try:
        await work(*arguments)
    except OcifsError as error:
        log.warning("%s: %s", name, error)
    except Exception:
        log.exception("unexpected error in %s", name)


def check_cancelled() -> None:
    """In a worker thread: raise trio.Cancelled if the task that waits for it was cancelled.

    Long work calls it every few MiB.
    """
    with suppress(RuntimeError):  # not a thread of trio
        trio.from_thread.check_cancelled()


class _Flight(Generic[T]):
    """Shared work: its waiters, and its result. It is the Waiter of the task that does the work."""

    __slots__ = ("done", "error", "host", "value", "waiters")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: T | None = None
        self.error: Exception | None = None
        self.waiters: list[Waiter] = []
        self.host: str | None = None

    def progress(self) -> None:
        for waiter in self.waiters:
            waiter.progress()

    def waits_for(self, host: str) -> None:
        self.host = host
        for waiter in self.waiters:
            waiter.waits_for(host)


class SingleFlight(Generic[K, T]):
    """Runs the work for a key once at a time, and shares the result among all callers.

    The work runs in `nursery`, never in the task of a caller. A caller that is cancelled leaves,
    and the work continues.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[K, _Flight[T]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, or of the work for this key that is already running."""
        # No await between the lookup and the entry, so no other task starts the same work.
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight, work)
        waiting = current_waiter()
        if waiting is not None:
            flight.waiters.append(waiting)
            # The work may have begun to wait for a host before this caller came.
            if flight.host is not None:
                waiting.waits_for(flight.host)
        try:
            await flight.done.wait()
        finally:
            if waiting is not None:
                flight.waiters.remove(waiting)
        if flight.error is not None:
            raise flight.error
        return cast(T, flight.value)

    async def _fly(self, key: K, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        # The task inherits the context of its first caller, but its progress is for all of them.
        _waiting.set(flight)
        try:
            flight.value = await work()
        except Exception as error:
            # Any error is for the waiters, not for the nursery.
            flight.error = error
        except BaseException:
            flight.error = DeadlineExceeded("cancelled before it was done")
            raise
        finally:
            # An error is not cached: the next caller starts the work again.
            del self._flights[key]
            flight.done.set()


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the first OcifsError of a group instead of the group that a nursery made.

    A group with any other exception is raised as it is.
    """
    # Not `except*`: Python 3.11.2 (Debian 12) wraps the exceptions raised there into a group again.
    try:
        yield
    except BaseExceptionGroup as group:
        errors, rest = group.split(OcifsError)
        if errors is None or rest is not None:
            raise
        raise _first(errors) from None


def _first(group: BaseExceptionGroup[OcifsError]) -> OcifsError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
