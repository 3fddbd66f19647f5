"""How a failed command ends: the message, the hint and the exit status.

The exit statuses are those of docs/reference/cli.md, and are decided here alone.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Sequence
from itertools import islice
from types import TracebackType

import click
from click.core import ParameterSource

from ocifs.cli.terminal import Mark, coloured, write
from ocifs.errors import InvalidReference, OcifsError, UsageError
from ocifs.printable import printable, printable_lines

FAILURE = 1
USAGE = 2
# The status that a shell reports for SIGINT.
INTERRUPTED = 130
# Names that are compared with a missing one: more would take longer than half a second.
MAX_COMPARED = 5_000
_SHOWN = 8
_CONFUSED = str.maketrans({"o": "0", "l": "1", "i": "1", "_": "-"})


def status_of(error: BaseException) -> int:
    """The exit status of an error: 2 if the command must be written differently, else 1."""
    return USAGE if isinstance(error, UsageError | InvalidReference | click.UsageError) else FAILURE


def text_of(error: OcifsError) -> str:
    """The message and, on an indented line, the hint."""
    message, hint = message_of(error), printable(error.hint)
    return f"{message}\n  {hint}" if hint else message


def message_of(error: OcifsError) -> str:
    """The message, cleaned. That of an invalid reference has further lines, with carets."""
    text = str(error)
    return printable_lines(text) if isinstance(error, InvalidReference) else printable(text)


def fail(error: OcifsError) -> None:
    """Print an error and its hint."""
    write(coloured("ocifs:", "red", sys.stderr), Mark(f" {message_of(error)}"), err=True)
    if error.hint:
        write(f"  {error.hint}", err=True)


def show_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of a bug (sys.excepthook), cleaned: it may contain foreign text."""
    for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
        write(line, err=True)


def nearest(missing: str, names: Iterable[str], cutoff: float = 0.6, shown: int = _SHOWN) -> str:
    """A hint with the names similar to a missing one, else with the first names.

    Empty if there are no names.
    """
    known = list(islice(names, MAX_COMPARED))
    close = close_names(missing, known, cutoff)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return f"available: {', '.join(known[:shown])}{more}" if known else ""


def close_names(missing: str, names: Sequence[str], cutoff: float = 0.6) -> list[str]:
    """At most three names that are similar to a missing one, the most similar first.

    Names that only look like it come before all others: `1.0` for `1.O`.
    """
    import difflib

    look = _look(missing)
    alike = [name for name in names if _look(name) == look]
    close = difflib.get_close_matches(missing, names, 3, cutoff)
    return list(dict.fromkeys((*alike, *close)))[:3]


def _look(name: str) -> str:
    """A text that is equal for names that are easily confused."""
    return name.lower().translate(_CONFUSED)


def fail_usage(error: click.ClickException) -> None:
    """Print an error of click in the form of all other errors."""
    # click appends similar names to the message. In ocifs they are the hint.
    message, _, close = error.format_message().strip().partition(" Did you mean ")
    context = error.ctx if isinstance(error, click.UsageError) else None
    parameter = error.param if isinstance(error, click.BadParameter) else None
    if context and parameter and parameter.name:
        source = context.get_parameter_source(parameter.name)
        if source is ParameterSource.ENVIRONMENT:
            message = f"{message.rstrip('.')} (from {parameter.envvar} in the environment)"
    hint = f"did you mean {close}" if close else ""
    if not hint and context:
        hint = f"see `{context.command_path} --help`"
    fail(UsageError(message[:1].lower() + message[1:].rstrip("."), hint=hint))
