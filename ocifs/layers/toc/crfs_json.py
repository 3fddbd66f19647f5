"""Reads the JSON of a CRFS table entry by entry.

The JSON of a large table takes ten times its size as Python objects. Only one entry is decoded at a
time.

Rules:

- Pure, for a worker thread.
- Linear in the size of the text: a value is decoded from a slice of at most 1 MiB.
- A duplicate member, an unknown version or invalid JSON is Malformed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ocifs.errors import Malformed
from ocifs.layers.toc.crfs_entry import TocEntry
from ocifs.settings import KIB

# Characters of a slice: the first size is enough for nearly all entries, the last for any.
_SLICES = (4 * KIB, 64 * KIB, 1024 * KIB)
_SPACE = re.compile(r"[ \t\n\r]*")


def scan_entries(text: str) -> Iterator[TocEntry]:
    """Yield the objects of the table's `entries`, one by one. Raises Malformed."""
    scanner = _JsonScanner(text)
    scanner.expect("{")
    seen: dict[str, object] = {}
    while scanner.next_element("}", first=not seen):
        name = scanner.value()
        scanner.expect(":")
        if not isinstance(name, str) or name in seen:
            raise Malformed("the table of contents has a duplicate member")
        seen[name] = None
        if name != "entries":
            seen[name] = scanner.value()
            continue
        scanner.expect("[")
        first = True
        while scanner.next_element("]", first=first):
            first = False
            entry = scanner.value()
            if not isinstance(entry, dict):
                raise Malformed("the table of contents has an entry that is not an object")
            yield entry
    # The version may follow the entries, so it is checked last.
    if not scanner.at_end() or seen.get("version") != 1 or "entries" not in seen:
        raise Malformed("the table of contents has an unknown version")


class _JsonScanner:
    """A position in a JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._decoder = json.JSONDecoder()

    def value(self) -> object:
        """Decode the next value, from a slice of the text."""
        self._skip_space()
        for size in _SLICES:
            part = self._text[self._position : self._position + size]
            is_last = len(part) < size
            try:
                value: object
                value, end = self._decoder.raw_decode(part)
            except (ValueError, RecursionError):
                # In an earlier slice, an error may only mean that the value continues behind it.
                if is_last:
                    break
                continue
            # A number at the end of a slice may continue behind it.
            if is_last or end < size:
                self._position += end
                return value
        raise Malformed(
            f"the table of contents has invalid or too long JSON at character {self._position}"
        )

    def expect(self, character: str) -> None:
        """Skip a character that must follow."""
        if not self._skip(character):
            raise Malformed(f"the table of contents has invalid JSON at character {self._position}")

    def next_element(self, end: str, *, first: bool) -> bool:
        """Skip the comma before the next element of an object or array; False at its end."""
        if self._skip(end):
            return False
        if not first:
            self.expect(",")
        return True

    def at_end(self) -> bool:
        """Whether only white space follows."""
        self._skip_space()
        return self._position == len(self._text)

    def _skip(self, character: str) -> bool:
        self._skip_space()
        matches = self._text.startswith(character, self._position)
        self._position += matches
        return matches

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
