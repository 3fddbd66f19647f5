"""What a terminal is given and nobody else: colours, and lines that are drawn anew.

Rules that hold here: a colour says nothing that the words do not say; NO_COLOR (https://no-color.org), TERM=dumb and an output that is no
terminal get none; CLICOLOR_FORCE gives them to a pipe.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

_CLEAR = "\033[H\033[2J\033[3J"


def is_screen(stream: TextIO) -> bool:
    """Whether this is a terminal on which lines can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours(stream: TextIO) -> bool:
    """Whether colours are wanted on this stream."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return is_screen(stream)


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """A text in one of click's colours, where the stream has them."""
    return click.style(text, fg=colour) if colour and has_colours(stream) else text


def say(text: str, stream: TextIO) -> None:
    """Write a line whose colours were decided by `coloured`."""
    click.echo(text, file=stream, color=has_colours(stream))


def begin_screen(stream: TextIO, *, first: bool) -> None:
    """Before a screen that replaces the last one; elsewhere than on a terminal, a blank line between them."""
    if is_screen(stream):
        stream.write(_CLEAR)
    elif not first:
        stream.write("\n")


@contextmanager
def progress(total: int, label: str, stream: TextIO) -> Iterator[Callable[[int], None]]:
    """A bar for work of `total` steps, told of each count that was done. Elsewhere than on a screen nothing is written at all.

    (click's own bar writes its label there, which is a line that no script asked for.)
    """
    if not is_screen(stream):
        yield lambda count: None
        return
    with click.progressbar(length=total, label=label, file=stream) as bar:
        yield bar.update
