"""Divides the connections of a host among its large transfers, and their windows into requests.

Used in the event loop by `Fetches`. One instance for the blobs of one source.

A transfer is large if its reader is sequential, or has announced how far it reads: its window has
at least BULK bytes. All others are small, and are never counted, delayed or divided here.

- Large requests occupy at most three quarters of the connections of a host. The rest remain for
  small ones, so a random reader never waits behind a large transfer.
- A large reader without a free connection gets small requests: it is slower, and never stuck.
- Each reader gets an equal share of `ConnectionCount.limit`, at least one connection. A blob gets
  at most PER_BLOB.
- The first request of a host is short, since a request that is under way cannot be divided.
- Near the end of a transfer requests become shorter, so that they end together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.connections import ConnectionCount
from ocifs.store.blobs.open_blob import Fetch, OpenBlob
from ocifs.store.blobs.readahead import LARGEST, PART, ReaderState

BULK = MIB
PER_BLOB = 8
FIRST_REQUEST = 8 * MIB  # while the pace of a host is measured
LEAST, MOST = 4 * MIB, 24 * MIB  # bytes of one of several requests
EAGER = 2 * FIRST_REQUEST  # bytes that a caller wants, so that no measurement comes first
TRIAL = 0.4  # seconds of one request while another number of connections is tried
SHORT = 2 * MIB  # bytes of such a request if its pace is not known
AHEAD = 256 * MIB  # bytes requested ahead of a reader that has several connections


@dataclass(frozen=True, slots=True)
class Room:
    """The bytes that a reader may request now.

    `share`: its connections. [start, stop): the bytes that are missing and may be requested.
    `pending`: its bytes that are being fetched. `ahead`: the bytes to request ahead of it in all.
    `is_last`: there are none after them.
    """

    share: int
    start: int
    stop: int
    pending: int
    ahead: int
    is_last: bool


class BulkTransfers:
    """The large transfers of one host, which has `connections` connections."""

    def __init__(self, connections: int) -> None:
        self._most = max(1, connections * 3 // 4)
        self.count = ConnectionCount(self._most)
        self._readers: Counter[ReaderState] = Counter()
        self._blobs: Counter[Digest] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether another large request must not be sent."""
        return self._readers.total() >= self._most

    def share(self, opened: OpenBlob, reader: ReaderState) -> int:
        """The connections that a reader may use; 1 if its requests must not be divided."""
        if opened.whole_stream is not None:
            return 1
        readers = len(self._readers) + (reader not in self._readers)
        others = self._blobs[opened.digest] - self._readers[reader]
        return max(1, min(self.count.limit // readers, PER_BLOB - others))

    def ahead(self, reader: ReaderState, share: int) -> int:
        """The bytes to request ahead of a reader that has `share` connections.

        With several connections bytes cost less time, so a reader gets as many times more. A wrong
        guess then costs as much time as with one connection.
        """
        if reader.toward:
            most = LARGEST if share == 1 else AHEAD
            return max(reader.window, min(most, reader.toward - reader.position))
        if share == 1:
            return reader.window
        return max(reader.window, min(AHEAD, reader.streak * share // PART))

    def request_size(self, room: Room, now: float) -> int:
        """The bytes of the next request of a reader; 0 if it should wait until there are more."""
        left = room.stop - room.start
        if room.share == 1:
            return min(left, max(FIRST_REQUEST, self.count.until_trial(now)))
        # Two thirds: when a request ends, the next one must be within the bytes ahead.
        size = min(MOST, room.ahead * 2 // (3 * room.share))
        if self.count.is_trying:
            # If it does not pay, these requests take the pace of the first one until they end.
            size = min(size, max(SHORT, int(self.count.pace * TRIAL)))
        size = max(BULK, size)
        if not room.is_last:
            return size if left >= size else 0
        return min(left, size, max(LEAST, (left + room.pending) // room.share))

    def began(self, opened: OpenBlob, fetch: Fetch, now: float) -> None:
        """A large request is sent."""
        if fetch.reader is not None:
            self._readers[fetch.reader] += 1
            self._blobs[opened.digest] += 1
            self.count.most = min(self._most, PER_BLOB * len(self._blobs))
            self.count.begin(now)

    def ended(self, opened: OpenBlob, fetch: Fetch, now: float) -> None:
        """A large request has ended, with or without an error."""
        if fetch.reader is not None:
            self._readers -= Counter((fetch.reader,))
            self._blobs -= Counter((opened.digest,))
            self.count.end(now)

    def receive(self, fetch: Fetch, wait: float) -> Callable[[int], None]:
        """An answer has begun. Returns the function to call with the length of each piece."""
        if fetch.reader is None:
            return _ignore
        self.count.is_eager = fetch.reader.toward - fetch.reader.end >= EAGER
        self.count.answer(trio.current_time(), wait)
        return lambda length: self.count.arrived(trio.current_time(), length)


def blocks_of(size: int) -> int:
    """The number of blocks for `size` bytes from the start of a block."""
    return -(-size // BLOCK)


def _ignore(length: int) -> None:
    """Small transfers are not measured."""
