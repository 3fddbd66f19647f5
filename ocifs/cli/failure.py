"""How a command ends that failed: the message, the hint, the exit status.

Rules that hold here: exit statuses are those of docs/reference/cli.md, and are decided here alone.
"""

from __future__ import annotations

import sys

import click

from ocifs.cli.terminal import coloured, say
from ocifs.errors import InvalidReference, OcifsError, UsageError

FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # what a shell gives for SIGINT


def status_of(error: BaseException) -> int:
    """The exit status of an error: 2 where what was asked is to be written differently, else 1."""
    return USAGE if isinstance(error, UsageError | InvalidReference | click.UsageError) else FAILURE


def text_of(error: OcifsError) -> str:
    """What happened and, indented below it, what to try."""
    return f"{error}\n  {error.hint}" if error.hint else str(error)


def fail(error: OcifsError) -> None:
    """Say it."""
    say(f"{coloured('ocifs:', 'red', sys.stderr)} {text_of(error)}", sys.stderr)
