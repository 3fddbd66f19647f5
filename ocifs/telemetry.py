"""What a person or a machine reads in the log, and the number by which lines belong together.

Rules that hold here: httpx and httpcore never log, since they write whole addresses, and a signed
one is a secret; a line of ours names method, host, path and status, never a query or a header; the
number is that of the operation that a caller waits for, and work that is started on its behalf
inherits it.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import time

from ocifs.printable import printable, printable_lines

OPERATION: contextvars.ContextVar[int] = contextvars.ContextVar("ocifs_operation", default=0)
_LEVELS = (logging.INFO, logging.DEBUG, 5)
TRACE = _LEVELS[2]
"""The level of a line for each operation: a listing makes thousands of them."""

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)  # syslog(3)
_SILENT = ("httpx", "httpcore", "hpack")
# Nothing of ours logs one. This holds back what some library puts into an exception's text.
_SECRET = re.compile(
    r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}|(://[^\s/:@]*:)[^\s/@]+(?=@)|([?&][^\s=&?]+=)[^\s&\"']+"
)


def begin_operation(number: int) -> None:
    """Put a number on the log lines of the current task, from here on. Numbers begin with 1."""
    OPERATION.set(number)


def redact_secrets(text: str) -> str:
    """A text with values of queries, passwords in addresses and credentials of HTTP taken out."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2] or found[3]}…", text)


class TextFormatter(logging.Formatter):
    """A line for people. `#12` is the operation."""

    def __init__(self, form: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
        super().__init__(form)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name that logging has)
        record.message = printable(record.message)  # so that no message begins a line of its own
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        number = OPERATION.get()
        text = redact_secrets(printable_lines(super().format(record)))
        return f"{text} #{number}" if number and not record.exc_info else text


class JsonFormatter(logging.Formatter):
    """An object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{when}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact_secrets(record.getMessage()),
        }
        if OPERATION.get():
            fields["operation"] = OPERATION.get()
        if record.exc_info:
            fields["exception"] = redact_secrets(self.formatException(record.exc_info))
        return json.dumps(fields)


class JournalFormatter(TextFormatter):
    """Lines for systemd's journal, which has the time itself: each begins with its priority
    (sd-daemon(3)).
    """

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def stderr_is_journal() -> bool:
    """Whether systemd's journal reads our standard error (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter, "journald": JournalFormatter}


def start_logging(verbosity: int, form: str = "text") -> None:
    """Log to standard error, as `form` says (text, json, journald; the journal gets its own instead
    of text).

    Errors that callers got; with 1 each request to a registry, too; with 2 each operation, too.
    """
    _write_as(_FORMATTERS["journald" if form == "text" and stderr_is_journal() else form]())
    logging.addLevelName(TRACE, "TRACE")
    logging.getLogger("ocifs").setLevel(_LEVELS[min(verbosity, 2)])


def log_warnings() -> None:
    """For a command that a person waits for: warnings on standard error, as its own messages are."""
    _write_as(TextFormatter("ocifs: %(message)s"))


def _write_as(formatter: logging.Formatter) -> None:
    """Warnings on standard error in a form; the libraries that must not log do not, whoever has
    what form.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
