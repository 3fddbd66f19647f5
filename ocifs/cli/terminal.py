"""Everything that commands write, except the bytes of `ocifs cat`.

- Names and messages contain text of other people. On a terminal, and always on standard error,
  `printable` replaces its control characters. The escape sequences of ocifs itself are `Mark`s.
- In a pipe or file, standard output contains names byte for byte, as with ls(1) and find(1).
- Colours carry no information of their own. NO_COLOR (https://no-color.org), TERM=dumb and outputs
  that are not terminals have none. CLICOLOR_FORCE adds them to a pipe, which is then cleaned like a
  terminal.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click

from ocifs.printable import printable, printable_lines

# ECMA-48 CUP and ED, and xterm's ED 3, which erases the scrollback as well.
_CLEAR = "\033[H\033[2J\033[3J"


def is_screen(stream: TextIO) -> bool:
    """Whether this is a terminal on which lines can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours(stream: TextIO) -> bool:
    """Whether this stream gets colours."""
    # An empty NO_COLOR does not count (https://no-color.org).
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return is_screen(stream)


class Mark(str):
    """Text of ocifs itself, which may contain escape sequences."""

    __slots__ = ()


CLEAR_LINE = Mark("\r\033[K")


def coloured(text: str, colour: str, stream: TextIO) -> Mark:
    """A cleaned text, in one of click's colours if the stream gets colours."""
    plain = printable(text)
    return Mark(click.style(plain, fg=colour) if colour and has_colours(stream) else plain)


def write(*parts: str, err: bool = False, end: str = "\n") -> None:
    """Write a line of parts to standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    if err or stream.isatty() or has_colours(stream):
        text = "".join(part if isinstance(part, Mark) else printable(part) for part in parts)
        # click would remove the escape sequences in a pipe, for which CLICOLOR_FORCE requests them.
        click.echo(text + end, file=stream, nl=False, color=True)
    else:
        # Not as text: the encoding of the locale may not be able to represent a name.
        click.echo(_bytes("".join(parts) + end), file=stream, nl=False)


def write_lines(text: str) -> None:
    """Write several lines made by ocifs, such as JSON, to standard output."""
    write(Mark(printable_lines(text)) if sys.stdout.isatty() else text)


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, from a publisher's JSON
        return text.encode(errors="backslashreplace")


def begin_screen(stream: TextIO, *, first: bool) -> None:
    """Clear the terminal before the next screen. In a pipe, write a blank line instead."""
    if is_screen(stream):
        stream.write(_CLEAR)
    elif not first:
        stream.write("\n")
