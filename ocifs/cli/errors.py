"""How a command ends that failed: the message, the hint, the exit status.

Rules that hold here: exit statuses are those of docs/reference/cli.md, and are decided here alone.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from itertools import islice
from types import TracebackType

import click
from click.core import ParameterSource

from ocifs.cli.terminal import coloured, write
from ocifs.errors import InvalidReference, OcifsError, UsageError
from ocifs.printable import printable

FAILURE = 1
USAGE = 2
LOOKED_AT = 5_000  # names that are compared with what was written: that takes half a second
_SHOWN = 8
INTERRUPTED = 130  # what a shell gives for SIGINT


def status_of(error: BaseException) -> int:
    """The exit status of an error: 2 where what was asked is to be written differently, else 1."""
    return USAGE if isinstance(error, UsageError | InvalidReference | click.UsageError) else FAILURE


def text_of(error: OcifsError) -> str:
    """What happened and, indented below it, what to try."""
    what, hint = printable(str(error)), printable(error.hint)
    return f"{what}\n  {hint}" if hint else what


def fail(error: OcifsError) -> None:
    """Say it."""
    write(coloured("ocifs:", "red", sys.stderr), f" {error}", err=True)
    if error.hint:
        write(f"  {error.hint}", err=True)


def show_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Write the traceback of a bug (sys.excepthook): its message may have text of a stranger."""
    for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
        write(line, err=True)


def nearest(wanted: str, names: Iterable[str], alike: float = 0.6) -> str:
    """Which of the names may have been meant, as a hint: those like it, else the first that there
    are; empty where there are none.
    """
    import difflib

    known = list(islice(names, LOOKED_AT))
    close = difflib.get_close_matches(wanted, known, 3, alike)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return (
        f"there {'is' if len(known) == 1 else 'are'}: {', '.join(known[:_SHOWN])}{more}"
        if known
        else ""
    )


def fail_usage(error: click.ClickException) -> None:
    """Say what the command line parser has to say, in the form of all other failures."""
    what, _, close = error.format_message().strip().partition(" Did you mean ")
    context = error.ctx if isinstance(error, click.UsageError) else None
    parameter = error.param if isinstance(error, click.BadParameter) else None
    if context and parameter and parameter.name:
        source = context.get_parameter_source(parameter.name)
        if source is ParameterSource.ENVIRONMENT:
            what = f"{what.rstrip('.')} (from {parameter.envvar} in the environment)"
    hint = f"did you mean {close}" if close else ""
    if not hint and context:
        hint = f"`{context.command_path} --help` says what can be given"
    fail(UsageError(what[:1].lower() + what[1:].rstrip("."), hint=hint))
