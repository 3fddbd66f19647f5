"""Counters of a mount, and its latest errors, for `.ocifs/`.

Rules that hold here: the size is bounded; there are no secrets, since error messages contain none.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from ocifs.printable import printable

MAX_RECORDS = 200


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error that was returned to a caller, or a note."""

    when: float
    operation: str
    errno: str
    message: str
    hint: str


@dataclass(slots=True)
class Stats:
    """The number of operations, the seconds that callers waited, the bytes read, and the latest
    errors.
    """

    operations: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes_read: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    unexpected: int = 0
    last: deque[ErrorRecord] = field(default_factory=lambda: deque(maxlen=MAX_RECORDS))

    def record_error(self, operation: str, errno: str, message: str, hint: str = "") -> None:
        """Record an error that is returned to a caller."""
        self.errors[errno] += 1
        self.last.append(ErrorRecord(time.time(), operation, errno, message, hint))

    def record_note(self, message: str) -> None:
        """Record a note for the user about something that no caller can notice."""
        self.last.append(ErrorRecord(time.time(), "cache", "NOTE", message, ""))

    def report(self) -> bytes:
        """The latest errors as text, newest last."""
        lines = []
        for record in self.last:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.when))
            lines.append(
                f"{when} {record.operation} {record.errno}: {record.message}"
                + (f" ({record.hint})" if record.hint else "")
            )
        return "".join(printable(line) + "\n" for line in lines).encode()
