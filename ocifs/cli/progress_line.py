"""The progress of a long command: a line that is redrawn on a terminal, and one line at the end.

Used in the main thread. All of it is written to standard error.

- On a terminal the line appears at once, before anything is known, and is redrawn at most ten times
  a second. Where it stands, results of the command can be written after `clear`.
- In a pipe or file only the line at the end is written.
- An interrupted command writes the completed part and how to continue, instead of the last line.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from ocifs.cli.errors import INTERRUPTED
from ocifs.cli.terminal import CLEAR_LINE, Mark, is_screen, write
from ocifs.printable import printable
from ocifs.units import format_duration, format_size
from ocifs.verbs.progress import Progress

_REDRAW = 0.1  # the shortest time in seconds between two lines
_TICK = 0.5  # seconds after which the line is redrawn although nothing has changed
# The rate is that of the last seconds: it follows a line that becomes slow, but does not flicker.
_RATE_SECONDS = 5.0
_BAR = 20  # characters
_COLUMNS = 100  # the width if the terminal does not report it


class ProgressLine:
    """Shows one Progress. `unit` is counted by `done`, if it is not bytes: `tag`."""

    def __init__(self, unit: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = Progress(lambda _: self.draw())
        self._unit = unit
        self._clock = clock
        self._began = clock()
        self._drawn_at = -_REDRAW
        self._visible = False
        # Times and transferred amounts, at most one pair for each redrawn line.
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])

    def draw(self, *, now: bool = False) -> None:
        """Redraw the line, unless that was done a moment ago."""
        time_now = self._clock()
        # The last change is always drawn.
        now = now or 0 < self.progress.total <= self.progress.done
        if not is_screen(sys.stderr) or (not now and time_now - self._drawn_at < _REDRAW):
            return
        self._drawn_at = time_now
        self._visible = True
        # One column stays free: some terminals wrap the line when the last one is used.
        width = shutil.get_terminal_size((_COLUMNS, 24)).columns - 1
        write(CLEAR_LINE, Mark(printable(self.text())[:width]), err=True, end="")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line. It is drawn again below the next output."""
        if self._visible:
            write(CLEAR_LINE, err=True, end="")
            self._visible = False

    def text(self) -> str:
        """The line: `layer 2 of 5  [##--] 48 MiB of 135 MiB  36%  22 MiB/s  4 s left`."""
        progress = self.progress
        parts = []
        if progress.items:
            number = min(progress.items_done + 1, progress.items)
            parts.append(f"{progress.item} {number} of {progress.items}")
        if progress.total and progress.growing:
            parts.append(self._amount())
        elif progress.total:
            share = min(1.0, progress.done / progress.total)
            filled = "#" * int(share * _BAR)
            parts.append(f"[{filled:-<{_BAR}}] {self._amount()}")
            parts.append(f"{int(share * 100):>2}%")
        if progress.activity:
            parts.append(progress.activity)
        elif progress.total:
            parts += self._speed()
        return "  ".join(parts)

    def summary(self) -> str:
        """The line at the end: `134.9 MiB in 6 s (22.4 MiB/s), 5 layers`."""
        progress, seconds = self.progress, self._clock() - self._began
        shown = f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)
        text = f"{self._of(progress.done)} in {shown}"
        moved = progress.done - progress.reused
        if not self._unit and moved:
            text += f" ({format_size(moved / max(seconds, 0.001))}/s)"
        if progress.items:
            plural = "" if progress.items == 1 else "s"
            text += f", {progress.items} {progress.item}{plural}"
        if progress.reused:
            text += f"; {self._of(progress.reused)} already present"
        return text

    def interruption(self) -> str:
        """The completed part of an interrupted command: `48.1 MiB of 134.9 MiB`."""
        return self._amount() if self.progress.total else ""

    def _amount(self) -> str:
        progress = self.progress
        if self._unit:
            more = "+" if progress.growing else ""
            return f"{progress.done:,} of {progress.total:,}{more} {self._unit}s"
        return f"{format_size(progress.done)} of {format_size(progress.total)}"

    def _of(self, amount: int) -> str:
        if not self._unit:
            return format_size(amount)
        return f"{amount:,} {self._unit}{'' if amount == 1 else 's'}"

    def _speed(self) -> Iterator[str]:
        """The rate of the last seconds, and the time that the rest takes at that rate."""
        progress, now = self.progress, self._clock()
        self._samples.append((now, progress.done - progress.reused))
        # The first sample in the window is the last one that is older than it.
        while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        if now - then < _TICK:
            return
        rate = (progress.done - progress.reused - before) / (now - then)
        yield f"{rate:,.0f} {self._unit}s/s" if self._unit else f"{format_size(rate)}/s"
        left = progress.total - progress.done
        if rate > 0 and left >= rate and not progress.growing:
            yield f"{format_duration(left / rate)} left"


@asynccontextmanager
async def ticking(line: ProgressLine, *, summary: bool = True) -> AsyncIterator[Progress]:
    """Show a line while the block runs, then remove it, and write the summary.

    The line is also redrawn while nothing arrives, so that its rate falls.
    """
    # Imported here: commands without an event loop show progress as well.
    import trio

    from ocifs.concurrency import ungrouped

    async def tick() -> None:
        while True:
            line.draw(now=True)
            await trio.sleep(_TICK)

    try:
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                yield line.progress
                nursery.cancel_scope.cancel()
    finally:
        line.clear()
    if summary:
        write(line.summary(), err=True)


@contextmanager
def resumable(line: ProgressLine) -> Iterator[None]:
    """Write how an interrupted command is continued. The first line appears at once."""
    try:
        line.draw(now=True)
        yield
    except KeyboardInterrupt:
        line.clear()
        # The terminal has written ^C into the line.
        start = CLEAR_LINE if is_screen(sys.stderr) else Mark()
        done = line.interruption()
        after = f" after {done}" if done else ""
        write(start, f"ocifs: interrupted{after}; run the same command again to continue", err=True)
        # click would write an empty line for a KeyboardInterrupt.
        raise SystemExit(INTERRUPTED) from None
    finally:
        line.clear()
