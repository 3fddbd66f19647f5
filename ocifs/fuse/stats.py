"""What went wrong lately, and how much was done: the daemon's memory of itself.

Rules that hold here: bounded; no secret comes here, since no error message has one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from ocifs.printable import printable

MAX_RECORDS = 200


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """One error that a caller got."""

    when: float
    operation: str
    errno: str
    message: str
    hint: str


@dataclass(slots=True)
class Stats:
    """Counts of operations, the seconds that callers waited for them, the bytes that they got, and
    the last errors.
    """

    operations: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes_read: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    unexpected: int = 0
    last: deque[ErrorRecord] = field(default_factory=lambda: deque(maxlen=MAX_RECORDS))

    def record_error(self, operation: str, errno: str, message: str, hint: str = "") -> None:
        """Remember an error that a caller got."""
        self.errors[errno] += 1
        self.last.append(ErrorRecord(time.time(), operation, errno, message, hint))

    def record_note(self, message: str) -> None:
        """Remember what no caller noticed, but a person should know."""
        self.last.append(ErrorRecord(time.time(), "cache", "NOTE", message, ""))

    def report(self) -> bytes:
        """The last errors for a person, newest last."""
        lines = []
        for record in self.last:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.when))
            lines.append(
                f"{when} {record.operation} {record.errno}: {record.message}"
                + (f" ({record.hint})" if record.hint else "")
            )
        return "".join(printable(line) + "\n" for line in lines).encode()
