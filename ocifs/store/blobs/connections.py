"""How many connections the large transfers of one host use together: hill climbing on their pace.

Many registries limit the pace of a connection, and some the pace of a client. So the number grows
while the total pace grows with it, and returns to the last one that paid.

    limit      measured pace of all connections
      1        p             try 3
      3        2.9 p         it paid: try 9
      9        3 p           it did not: 3, and the next attempt after a pause

Pure, and used in the event loop. The caller passes the time, and reports each request (`begin`,
`answer`, `end`) and all bytes (`arrived`). One instance a host, so later blobs begin with the
number that earlier ones have found.

- A measurement counts only while at least `limit` connections are busy: a slow reader, or a short
  transfer, proves nothing.
- It begins after the first bytes of each new connection. A server that lets additional connections
  wait has not accepted them.
- A fast connection (FAST) is not split: its pace is that of the line, or of this machine.
- A host that limits requests, or loses connections, gets fewer at once.
"""

from __future__ import annotations

from math import inf

from ocifs.settings import MIB

FAST = 100e6
"""Bytes per second of one connection at which another one is not tried."""

GAIN = 0.25
"""The share of a proportional gain that a new number of connections must reach."""

GROWTH = 3
SAMPLE = MIB  # bytes of one measurement
PERIOD, LONGEST_PERIOD = 0.06, 1.0  # seconds of one measurement
WARM = 1.0  # seconds in which new connections must have an answer
HOLD, LONGEST_HOLD = 15.0, 240.0  # seconds after an attempt that did not pay
STRAIN_HOLD = 60.0  # seconds after a refusal
MEMORY = 300.0  # seconds without a transfer after which the number is forgotten


class ConnectionCount:
    """The number of connections of one host: `limit`, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = 1
        self.pace = 0.0
        """Bytes per second of all connections, in the last measurement; 0 before the first."""
        self._paid = 1  # the last number that was worth it
        self._base = 0.0  # its pace
        self._raised_at: float | None = None  # set while a larger number is tried
        self._awaited = 0  # first bytes of new connections that have not come
        self._hold = HOLD
        self._hold_until = 0.0
        self._active = 0
        self._is_draining = False  # more than `limit` are active, since it was lowered
        self._last = inf  # the end of the last request
        self._since: float | None = None
        self._bytes = 0

    def is_settled(self, now: float) -> bool:
        """Whether another number is not going to be tried soon."""
        return self._raised_at is None and now < self._hold_until

    @property
    def is_trying(self) -> bool:
        """Whether a larger number is being tried."""
        return self._raised_at is not None

    def begin(self, now: float) -> None:
        """A request was sent."""
        if not self._active and now - self._last > MEMORY:
            self._set(1)
            self.pace, self._hold, self._hold_until = 0.0, HOLD, 0.0
        self._active += 1

    def answer(self) -> None:
        """The answer to a request has begun."""
        self._awaited = max(0, self._awaited - 1)

    def end(self, now: float) -> None:
        """A request has ended, in whatever way."""
        self._active -= 1
        self._last = now
        if self._active <= self.limit:
            self._is_draining = False

    def strained(self, now: float) -> None:
        """The host has limited the requests: one connection for a while."""
        self._set(1)
        self._hold_until = max(self._hold_until, now + STRAIN_HOLD)

    def lost(self, now: float) -> None:
        """A connection was lost. With several at once, they may be the reason."""
        if self.limit > 1:
            self._set(max(1, min(self.limit, self._paid) // 2))
            self._pause(now)

    def arrived(self, now: float, count: int) -> None:
        """Bytes arrived. This may change `limit`."""
        if self._is_draining:
            return
        if self._active < self.limit:
            self._since = None
            if self._raised_at is not None and now - self._raised_at > WARM:
                # There was nothing to do for the additional connections.
                self._set(self._paid)
            return
        if self._awaited and self._raised_at is not None:
            if now - self._raised_at > WARM:
                self._set(self._paid)
                self._pause(now)
            return
        if self._since is None:
            # The first bytes may have waited for long, so their time is unknown.
            self._since, self._bytes = now, 0
            return
        self._bytes += count
        seconds = now - self._since
        if self._bytes < SAMPLE:
            is_enough = seconds >= LONGEST_PERIOD
        else:
            is_enough = seconds >= PERIOD or self._bytes >= FAST * PERIOD
        if is_enough and seconds > 0:
            self._since = None
            self._measured(now, self._bytes / seconds)

    def _measured(self, now: float, pace: float) -> None:
        active = max(self.limit, self._active)
        self.pace = pace
        if self._raised_at is not None:
            growth = active / max(1, self._paid) - 1
            if pace < self._base * (1 + GAIN * growth):
                self._set(self._paid)
                self.pace = self._base
                self._pause(now)
                return
            self._raised_at, self._paid, self._hold = None, active, HOLD
        self._base = pace
        target = min(active * GROWTH, self.most)
        if pace / active >= FAST:
            self._hold_until = now + HOLD
        elif target > active and now >= self._hold_until:
            self._paid, self.limit, self._raised_at = active, target, now
            self._awaited = target - active

    def _set(self, limit: int) -> None:
        self.limit = self._paid = limit
        self._is_draining = self._active > limit
        self._raised_at, self._since, self._awaited = None, None, 0

    def _pause(self, now: float) -> None:
        self._hold_until = now + self._hold
        self._hold = min(LONGEST_HOLD, self._hold * 2)
