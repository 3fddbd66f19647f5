"""The progress of a verb: how much of the work is done.

A caller creates a Progress and passes it to a verb. The tasks of the verb update it, several of
them at the same time. The caller reads its fields, and may be notified of each change. All of this
happens in the thread of the verb: the event loop, or the caller of a blocking verb.

- `done` and `total` are bytes; in a search they are tags. A total may grow while the work is
  discovered, and never shrinks.
- `items_done` and `items` count the items of the work, such as layers. Several may be in progress
  at the same time, and they end in any order.
- `reused` is the part of `done` that needed no transfer. Rates do not count it.
- `on_change` must not block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """The state of one run of a verb. A verb calls the methods, and a caller reads the fields."""

    on_change: Callable[[Progress], None] | None = None
    done: int = 0
    total: int = 0
    growing: bool = False
    """More work may be discovered, so that the total is not the end."""
    reused: int = 0
    item: str = ""
    """The unit of `items`: `layer`, `file`, `blob`. Empty if `done` counts the items."""
    items_done: int = 0
    items: int = 0
    activity: str = ""
    """The current work, if it cannot be measured: `unpacking 3 layers`."""

    def expect(self, amount: int, items: int = 0) -> None:
        """Add work that was discovered."""
        self.total += amount
        self.items += items
        self._changed()

    def advance(self, amount: int, *, reused: bool = False) -> None:
        """Record that `amount` more is done."""
        self.done += amount
        # An item of unknown size may be larger than expected.
        self.total = max(self.total, self.done)
        if reused:
            self.reused += amount
        self._changed()

    def finish_item(self) -> None:
        """Record that one item more is done."""
        self.items_done += 1
        self._changed()

    def begin(self, activity: str) -> None:
        """Name work that cannot be measured, or end it with an empty text."""
        self.activity = activity
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change(self)
