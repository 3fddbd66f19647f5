"""Waiting for others: patience with a limit, and one piece of work for all who want it.

trio only, no knowledge of the domain.

Rules that hold here: every wait happens within a `patience` (or is bounded by whoever runs it);
work that several may wait for belongs to a nursery that outlives each of them, so that a caller who
gives up takes nothing from the others; a failure goes to every waiter once.
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
    """Somebody who waits, and to whom progress may be told."""

    def progress(self) -> None:
        """Something arrived: the time without progress starts again."""
        ...

    def waits_for(self, place: str) -> None:
        """The work waits for a host."""
        ...


_waiting: ContextVar[Waiter | None] = ContextVar("waiting", default=None)


def note_progress() -> None:
    """Tell whoever waits for the work of this task that it advances.

    Cheap; to be called whenever bytes or pages arrive.
    """
    waiting = _waiting.get()
    if waiting is not None:
        waiting.progress()


def note_waiting_for(place: str) -> None:
    """Record for the waiter of this task which host is waited for."""
    waiting = _waiting.get()
    if waiting is not None:
        waiting.waits_for(place)


def current_waiter() -> Waiter | None:
    """Whoever waits for the work of this task, to be told later from another task."""
    return _waiting.get()


SMALL = 64 << 10
"""Bytes that are parsed or hashed on the event loop: at most two milliseconds of work."""


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """The result of pure work on `size` bytes, done in a worker thread if they are many.

    A caller that is cancelled leaves at once, and the result is dropped; so the work must be
    bounded.
    """
    if size <= SMALL:
        return work()
    return await in_thread(work, abandon_on_cancel=True)


class Patience:
    """One caller's patience: `timeout` seconds without progress, `max_wait` seconds in all.

    `place`: the host that it waits for.
    """

    __slots__ = ("_end", "_outer", "_timeout", "place", "scope")

    def __init__(self, timeout: float, max_wait: float, outer: Waiter | None = None) -> None:
        self._outer = outer
        now = trio.current_time()
        self._timeout = timeout
        self._end = now + max_wait
        self.place: str | None = None
        self.scope = trio.CancelScope(deadline=min(now + timeout, self._end))

    def progress(self) -> None:
        if (
            not self.scope.cancel_called
        ):  # too late: the deadline that has passed must stay to be seen
            self.scope.deadline = min(trio.current_time() + self._timeout, self._end)
        if self._outer is not None:
            self._outer.progress()

    def waits_for(self, place: str) -> None:
        self.place = place
        if self._outer is not None:
            self._outer.waits_for(place)


@contextmanager
def patience(timeout: float, max_wait: float) -> Iterator[Patience]:
    """Bound everything awaited inside; raise DeadlineExceeded when the time is up.

    The scope inside may be cancelled by others.

    Whoever waits for this task is told of progress, too.
    """
    mine = Patience(timeout, max_wait, _waiting.get())
    token = _waiting.set(mine)
    try:
        with mine.scope:
            yield mine
    finally:
        _waiting.reset(token)
    if mine.scope.cancelled_caught and trio.current_time() >= mine.scope.deadline:
        raise DeadlineExceeded(
            f"nothing came within {timeout:g} s, or not all within {max_wait:g} s"
        )


_THREADS_AGAIN = 0.1  # seconds between two tries to start a thread
_THREADS_WAIT = 60.0  # seconds after which that is an error


async def in_thread(
    work: Callable[[Unpack[Ts]], T],
    *arguments: *Ts,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Run blocking work in a worker thread. Where the system gives no thread, wait for one.

    Raises DeadlineExceeded if there is none for a minute, or whatever the work raises.
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
            if started:  # the work itself raised it
                raise
            if trio.current_time() >= end:
                raise DeadlineExceeded(_NO_THREAD, hint=_THREADS_HINT) from None
        await trio.sleep(_THREADS_AGAIN)


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. If the system gives none, wait for one, in the calling worker thread.

    Raises DeadlineExceeded as `in_thread` does.
    """
    end = time.monotonic() + _THREADS_WAIT
    while True:
        try:
            return thread.start()
        except RuntimeError:
            if thread.ident is not None:  # it has run already
                raise
            if time.monotonic() >= end:
                raise DeadlineExceeded(_NO_THREAD, hint=_THREADS_HINT) from None
        check_cancelled()
        time.sleep(_THREADS_AGAIN)


_NO_THREAD = "the system gives this process no further thread"
_THREADS_HINT = "raise the limit of tasks: pids.max, TasksMax or ulimit -u"


async def guarded(
    name: str, work: Callable[[Unpack[Ts]], Awaitable[None]], *arguments: *Ts
) -> None:
    """Run a background task.

    An exception ends the task and is logged; it never reaches the nursery, which holds the whole
    mount.
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
    with suppress(RuntimeError):  # not a thread of trio's
        trio.from_thread.check_cancelled()


class _Flight(Generic[T]):
    """Work under way: who waits for it, and what came of it."""

    __slots__ = ("done", "error", "place", "value", "waiters")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: T | None = None
        self.error: Exception | None = None
        self.waiters: list[Waiter] = []
        self.place: str | None = None

    def progress(self) -> None:
        for waiter in self.waiters:
            waiter.progress()

    def waits_for(self, place: str) -> None:
        self.place = place
        for waiter in self.waiters:
            waiter.waits_for(place)


class SingleFlight(Generic[K, T]):
    """At most one piece of work for a key at a time, whoever asks for it and however many.

    The work runs in `nursery`, never in a caller: a caller that is cancelled leaves, and the work
    goes on.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[K, _Flight[T]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, or raises; joined when work for this key is under way already."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight, work)
        waiting = current_waiter()
        if waiting is not None:
            flight.waiters.append(waiting)
            if flight.place is not None:
                waiting.waits_for(flight.place)
        try:
            await flight.done.wait()
        finally:
            if waiting is not None:
                flight.waiters.remove(waiting)
        if flight.error is not None:
            raise flight.error
        return cast(T, flight.value)

    async def _fly(self, key: K, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        _waiting.set(flight)
        try:
            flight.value = await work()
        except (
            Exception
        ) as error:  # whatever it was, it belongs to those who wait, not to the nursery
            flight.error = error
        except BaseException:
            flight.error = DeadlineExceeded("the work was ended before it was done")
            raise
        finally:
            del self._flights[key]
            flight.done.set()


@contextmanager
def ungrouped() -> Iterator[None]:
    """Let an error of ours out of the group that a nursery made of it: the first, for callers who
    can tell about one only.

    (`except*` would do, but Python 3.11.2, which Debian 12 has, puts what is raised there into a
    group again.)
    """
    try:
        yield
    except BaseExceptionGroup as group:
        ours, rest = group.split(OcifsError)
        if ours is None or rest is not None:
            raise
        raise _first(ours) from None


def _first(group: BaseExceptionGroup[OcifsError]) -> OcifsError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
