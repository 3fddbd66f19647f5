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
- A connection that is as fast as a usual line is not divided. To a near host (NEAR), neither is a
  slower one: this machine is the limit there.
- If a caller wants everything from a far host (`is_eager`), the first attempt does not wait for a
  measurement: the pace of the first connection is measured while the others are opened.
- A number above 1 is compared with its half from time to time.
- A host that limits requests, or loses connections, gets fewer at once.
"""

from __future__ import annotations

from math import inf

from ocifs.settings import MIB

FAST, FAST_NEAR = 100e6, 30e6
"""Bytes per second of one connection of a far or near host at which another one is not tried."""

NEAR = 0.005
"""Seconds of the fastest answer of a near host."""

GAIN, LOSS = 0.25, 0.1
"""The share of a proportional gain that a larger number must reach, and the largest loss of pace
at which a smaller one replaces it."""

GROWTH = 3
SAMPLE = MIB  # bytes of one measurement
PERIOD, LONGEST_PERIOD = 0.06, 1.0  # seconds of one measurement
SHORTEST = 0.02  # seconds of the first measurement of an eager caller
WARM = 1.0  # seconds in which new connections must have an answer
# Seconds after an attempt that did not pay, twice as long each time. The first measurements of a
# host are the least reliable: its limits may allow a burst.
HOLD, LONGEST_HOLD = 0.5, 240.0
SETTLED = 15.0  # seconds until a number that paid is compared with another one
STRAIN_HOLD = 60.0  # seconds after a refusal
MEMORY = 300.0  # seconds without a transfer after which the number is forgotten


class ConnectionCount:
    """The number of connections of one host: `limit`, at most `most`.

    `pace` is that of all connections in the last measurement, in bytes per second, or 0.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = 1
        self.pace = 0.0
        self.is_eager = False
        self._paid = 1  # the number before an attempt
        self._base = 0.0  # its pace; 0 while it is not known
        self._base_active = 1.0  # the connections that were busy on average
        self._tried_at: float | None = None  # set while another number is tried
        self._awaited = 0  # first bytes of new connections that have not come
        self._hold, self._recheck = HOLD, SETTLED
        self._hold_until = self._recheck_at = -inf
        self._active = 0
        self._busy, self._busy_at = 0.0, 0.0  # the time integral of `_active`, and its time
        self._is_draining = False  # more than `limit` are active, since it was lowered
        self._last_end = inf
        self._latency = inf
        self._since: float | None = None
        self._bytes = 0
        self._busy_before = 0.0

    def is_settled(self, now: float) -> bool:
        """Whether another number is not going to be tried soon."""
        return self._tried_at is None and now < self._hold_until

    def until_trial(self, now: float) -> int:
        """The bytes that arrive before another number may be tried."""
        return int(self.pace * max(self._hold_until - now, HOLD))

    @property
    def is_trying(self) -> bool:
        """Whether another number is being tried."""
        return self._tried_at is not None

    def begin(self, now: float) -> None:
        """A request was sent."""
        if not self._active and now - self._last_end > MEMORY:
            self._set(1)
            self.pace, self._hold, self._hold_until = 0.0, HOLD, -inf
        self._count(now, 1)

    def answer(self, now: float, wait: float) -> None:
        """The answer to a request has begun, after `wait` seconds."""
        self._latency = min(self._latency, wait)
        if self.is_trying and not self._base and self._since is not None:
            seconds = now - self._since
            # An unknown pace is not exceeded, so the attempt fails and is repeated as usual.
            self._base = self._bytes / seconds if seconds >= SHORTEST else inf
        self._awaited = max(0, self._awaited - 1)
        if not self._awaited:
            self._since = None

    def end(self, now: float) -> None:
        """A request has ended, with or without an error."""
        self._count(now, -1)
        self._last_end = now
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
            self._hold_until = max(self._hold_until, now + SETTLED)

    def arrived(self, now: float, count: int) -> None:
        """Bytes arrived. This may change `limit`."""
        if self._is_draining:
            return
        is_late = self._tried_at is not None and now - self._tried_at > WARM
        if self._active < self.limit:
            self._since = None
            if is_late:
                # There was nothing to do for the additional connections.
                self._set(self._paid)
            return
        if self._awaited and is_late:
            self._set(self._paid)
            self._pause(now)
        elif self._since is None:
            # The first bytes may have waited for long, so their time is unknown.
            self._since, self._bytes = now, 0
            self._count(now, 0)
            self._busy_before = self._busy
            if self.is_eager and not self.pace and self.limit == 1 and self._latency >= NEAR * 2:
                self._try(min(self.most, GROWTH**2), now)
                self._base, self._base_active = 0.0, 1.0
        else:
            self._bytes += count
            seconds = now - self._since
            if seconds > 0 and not self._awaited and self._is_enough(seconds):
                self._count(now, 0)
                self._since = None
                busy = (self._busy - self._busy_before) / seconds
                self._measured(now, self._bytes / seconds, busy)

    def _count(self, now: float, change: int) -> None:
        self._busy += self._active * (now - self._busy_at)
        self._busy_at = now
        self._active += change

    def _is_enough(self, seconds: float) -> bool:
        if self._bytes < SAMPLE:
            return seconds >= LONGEST_PERIOD
        return seconds >= PERIOD or self._bytes >= FAST * PERIOD

    def _measured(self, now: float, pace: float, busy: float) -> None:
        active = max(self.limit, self._active)
        if self.is_trying and not self._has_paid(now, pace, busy):
            return
        self.pace, self._base, self._base_active = pace, pace, busy
        target = min(active * GROWTH, self.most)
        if pace / busy >= (FAST_NEAR if self._latency < NEAR else FAST):
            self._hold_until = now + SETTLED
        elif target > active and now >= self._hold_until:
            self._try(target, now)
        elif active > 1 and now >= self._recheck_at:
            self._try(active // 2, now)

    def _has_paid(self, now: float, pace: float, busy: float) -> bool:
        """End an attempt. False: the number before it is used again."""
        if self.limit < self._paid:
            self._recheck_at = now + self._recheck
            self._recheck = min(LONGEST_HOLD, self._recheck * 2)
            needed = self._base * (1 - LOSS)
        else:
            self._recheck_at = now + SETTLED
            needed = self._base * (1 + GAIN * (busy / self._base_active - 1))
        if pace >= needed:
            self._tried_at, self._paid, self._hold = None, self.limit, HOLD
            return True
        is_known = self._base < inf
        if self.limit >= self._paid and is_known:
            self._pause(now)
        self.pace = self._base if is_known else pace
        self._set(self._paid)
        return False

    def _try(self, target: int, now: float) -> None:
        active = max(self.limit, self._active)
        self._paid, self.limit, self._tried_at = active, target, now
        self._awaited = max(0, target - active)
        self._is_draining = self._active > target

    def _set(self, limit: int) -> None:
        self.limit = self._paid = limit
        self._is_draining = self._active > limit
        self._tried_at, self._since, self._awaited = None, None, 0

    def _pause(self, now: float) -> None:
        self._hold_until = now + self._hold
        self._hold = min(LONGEST_HOLD, self._hold * 2)
