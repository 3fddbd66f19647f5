"""All that the commands write, but for the bytes of `ocifs cat`.

Rules that hold here:

- Text for a person is cleaned by `printable`: on a terminal, and on standard error wherever that
  leads. Escape sequences of our own are `Mark`s.
- Into a pipe or a file standard output has names as they are, byte for byte, as ls(1) and find(1)
  have them.
- A colour adds nothing to the words. NO_COLOR (https://no-color.org), TERM=dumb and an output that
  is not a terminal get none; CLICOLOR_FORCE gives them to a pipe, which is then cleaned as a
  terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from ocifs.printable import printable, printable_lines

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


class Mark(str):
    """Text of our own that may have escape sequences."""

    __slots__ = ()


CLEAR_LINE = Mark("\r\033[K")


def coloured(text: str, colour: str, stream: TextIO) -> Mark:
    """A text, cleaned, in one of click's colours if the stream has them."""
    plain = printable(text)
    return Mark(click.style(plain, fg=colour) if colour and has_colours(stream) else plain)


def write(*parts: str, err: bool = False, end: str = "\n") -> None:
    """Write a line of parts to standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    if err or stream.isatty() or has_colours(stream):
        text = "".join(part if isinstance(part, Mark) else printable(part) for part in parts)
        click.echo(text + end, file=stream, nl=False, color=True)
    else:
        click.echo(_bytes("".join(parts) + end), file=stream, nl=False)


def write_lines(text: str) -> None:
    """Write a text of several lines of our own (JSON, a page) to standard output."""
    write(Mark(printable_lines(text)) if sys.stdout.isatty() else text)


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character, in JSON of a stranger
        return text.encode(errors="backslashreplace")


def begin_screen(stream: TextIO, *, first: bool) -> None:
    """Before a screen that replaces the last one; elsewhere than on a terminal, a blank line
    between them.
    """
    if is_screen(stream):
        stream.write(_CLEAR)
    elif not first:
        stream.write("\n")


@contextmanager
def progress(total: int, label: str, stream: TextIO) -> Iterator[Callable[[int], None]]:
    """A bar for work of `total` steps, told of each count that was done.

    Elsewhere than on a screen nothing is written at all.

    (click's own bar writes its label there, which is a line that no script asked for.)
    """
    if not is_screen(stream):
        yield lambda count: None
        return
    with click.progressbar(length=total, label=printable(label), file=stream) as bar:
        yield bar.update
