"""The log: its formats, and the operation number that connects the lines of one operation.

The command line calls `start_logging` or `log_commands` once. Modules log from every thread. The
number is a context variable: tasks and threads that work for an operation inherit it.

Rules that hold here:

- No secrets. httpx and httpcore never log, since they would log signed URLs. A line contains the
  method, host, path and status, never a query or a header. The formatters redact the texts of
  exceptions of other libraries.
- No control characters. Names and error texts are untrusted, and a message cannot begin a new line.
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
"""The level of the lines that are logged for each operation: thousands for one listing."""

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)  # syslog(3)
_SILENT = ("httpx", "httpcore", "hpack")

_SECRET = re.compile(
    r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}|(://[^\s/:@]*:)[^\s/@]+(?=@)|([?&][^\s=&?]+=)[^\s&\"']+"
)


def begin_operation(number: int) -> None:
    """Set the operation number of the current task's log lines. Numbers begin with 1."""
    OPERATION.set(number)


def redact_secrets(text: str) -> str:
    """Replace the values of queries, passwords in URLs and HTTP credentials by `…`."""
    return _SECRET.sub(lambda match: f"{match[1] or match[2] or match[3]}…", text)


class TextFormatter(logging.Formatter):
    """Plain text. `#12` is the number of the operation."""

    def __init__(self, form: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
        super().__init__(form)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name that logging has)
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        number = OPERATION.get()
        text = redact_secrets(printable_lines(super().format(record)))
        return f"{text} #{number}" if number and not record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact_secrets(record.getMessage()),
        }
        if OPERATION.get():
            fields["operation"] = OPERATION.get()
        if record.exc_info:
            fields["exception"] = redact_secrets(self.formatException(record.exc_info))
        # The encoder escapes control characters, so the fields need no `printable`.
        return json.dumps(fields)


class JournalFormatter(TextFormatter):
    """Lines for systemd's journal: they begin with the priority (sd-daemon(3)) and have no time."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        # The journal stores each line as a message of its own, with its own priority.
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def stderr_is_journal() -> bool:
    """Whether stderr is connected to systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter, "journald": JournalFormatter}


def start_logging(verbosity: int, form: str = "text") -> None:
    """Log to stderr in a format: text, json or journald. For the journal, text means journald.

    Verbosity 0 logs errors, 1 also requests to registries, 2 also operations.
    """
    _log_to_stderr(_FORMATTERS["journald" if form == "text" and stderr_is_journal() else form]())
    logging.addLevelName(TRACE, "TRACE")
    logging.getLogger("ocifs").setLevel(_LEVELS[min(verbosity, 2)])


def log_commands(verbosity: int = 0) -> None:
    """Log to stderr in the style of a command's messages.

    Verbosity 0 logs warnings, 1 also requests to registries, 2 also retries and the like.
    """
    _log_to_stderr(TextFormatter("ocifs: %(message)s"))
    if verbosity:
        logging.getLogger("ocifs").setLevel(_LEVELS[min(verbosity, 2)])


def _log_to_stderr(formatter: logging.Formatter) -> None:
    """Log warnings to stderr, and silence the libraries that would log secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
