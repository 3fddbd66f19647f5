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
from contextlib import ExitStack
from typing import Protocol, TextIO

import click

from ocifs.printable import printable, printable_lines
from ocifs.units import format_size

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


class ClickBar(Protocol):
    """The used part of click's progress bar."""

    length: int | None

    def update(self, n_steps: int) -> None: ...


class ProgressBar(ExitStack):
    """A bar on standard error, from the first report of progress on.

    If standard error is not a terminal, nothing is written: click's own bar would write its label.
    `label` is the size of the work by default.
    """

    def __init__(self, label: str = "", *, show_position: bool = False) -> None:
        super().__init__()
        self.label = label
        self._show_position = show_position
        self._bar: ClickBar | None = None
        self._done = 0

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` steps, or bytes, are done."""
        if not is_screen(sys.stderr):
            return
        if self._bar is None:
            label = printable(self.label or format_size(total))
            bar = click.progressbar(
                length=total, label=label, show_pos=self._show_position, file=sys.stderr
            )
            self._bar = self.enter_context(bar)
        # The total of a search grows while further tags are listed.
        self._bar.length = total
        self._bar.update(done - self._done)
        self._done = done
