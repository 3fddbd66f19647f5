"""A tree that is being made: directories by their numbers, the way to a path, and the packed tree
at the end.

`overlay.py` fills it, in a worker thread; a `GrowingTree` is used by that thread alone. A directory
is a dictionary of names while it is in use, and packed when it was not used for a while, so that a
million entries take as little memory on the way as in the end.

Rules that hold here:

- pure
- nothing leads above the root
- a way through more than _MAX_LINKS links is a circle
- `names` is valid until the next `pack_idle`
- links' targets are walked at most limits.layer_link_steps names in all: each entry behind a link
  walks its target again
- what takes long looks for cancellation (`check_cancelled`)
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

from ocifs.concurrency import check_cancelled
from ocifs.errors import LimitExceeded
from ocifs.layers.index.entry import EntryKind, LayerIndex
from ocifs.layers.merge.tree import DIRECTORY, NOWHERE, MergedEntry, MergedTree, PackedDirectories
from ocifs.settings import Limits

ROOT = DIRECTORY
"""The code of the root."""
_MAX_LINKS = 255  # followed on the way to one entry, as many as Go's unpackers follow
OPEN = 32
"""Directories that stay in use when the others are packed."""
_OFTEN = 1 << 16  # names that are walked or unpacked between two looks for cancellation
MANY = 2 * OPEN
"""More directories in use than these are too many: `pack_idle` is due."""


class _GrowingDirectory:
    """A directory on its way: its names and their codes in a dictionary, or packed."""

    __slots__ = ("_names", "codes", "layer", "open", "place")

    def __init__(self, layer: int = NOWHERE, place: int = 0) -> None:
        self.layer = layer
        self.place = place
        self.open: dict[bytes, int] | None = {}
        self._names = b""
        self.codes = array("Q")

    def unpack(self) -> dict[bytes, int]:
        found = dict(zip(self._names.split(b"/"), self.codes, strict=True)) if self.codes else {}
        self.open, self._names, self.codes = found, b"", array("Q")
        return found

    def pack(self) -> bytes:
        """The names, joined; `codes` goes with them."""
        if self.open is not None:
            self._names, self.codes, self.open = (
                b"/".join(self.open),
                array("Q", self.open.values()),
                None,
            )
        return self._names


class GrowingTree:
    """The tree of the layers so far."""

    def __init__(self, layers: Sequence[LayerIndex], limits: Limits) -> None:
        self._layers = tuple(layers)
        self._lookup = MergedTree(self._layers, PackedDirectories(), {})
        self._limits = limits
        self._implied = 0
        self._link_steps = 0
        self._unchecked = 0  # names walked or unpacked since the last look for cancellation
        self._directories = [_GrowingDirectory()]
        self.open: list[_GrowingDirectory] = []  # those in use
        self._shared: set[int] = set()  # codes that hard links lead to

    def share(self, code: int) -> None:
        """Note that further names lead to an entry."""
        self._shared.add(code)

    def describe(self, code: int, layer: int, place: int) -> None:
        """Note which entry gives the attributes of a directory."""
        directory = self._directories[code ^ DIRECTORY]
        directory.layer, directory.place = layer, place

    def find(self, path: bytes, *, follow: bool = False) -> int | None:
        """The code that a path leads to in the tree so far, with links on the way followed, and at
        its end with `follow`.
        """
        walked = self.walk(path, follow=follow)
        return None if walked is None or walked[1] else walked[0][-1][1]

    def make(self) -> int:
        directory = _GrowingDirectory()
        self._directories.append(directory)
        self.open.append(directory)
        return len(self._directories) - 1 | DIRECTORY

    def imply(self) -> int:
        """A directory that no entry makes. Paths of a megabyte could ask for millions of them."""
        self._implied += 1
        most = self._limits.implied_directories
        if self._implied > most:
            raise LimitExceeded(
                f"more directories are implied than limits.implied_directories ({most})"
            )
        return self.make()

    def names(self, code: int) -> dict[bytes, int]:
        """The names of a directory, to be changed until the next `pack_idle`."""
        directory = self._directories[code ^ DIRECTORY]
        if directory.open is None:
            self.open.append(directory)
            self.work(len(directory.codes))
            return directory.unpack()
        return directory.open

    def pack_idle(self) -> None:
        """Pack all but the directories used last.

        Call it when `open` has more than MANY: one path may have opened thousands.
        """
        idle = max(0, len(self.open) - OPEN)
        for directory in self.open[:idle]:
            directory.pack()
        del self.open[:idle]

    def walk(
        self, path: bytes, *, follow: bool
    ) -> tuple[list[tuple[bytes, int]], list[bytes]] | None:
        """From the root to where a path ends or stops, names and codes; and the names that are not
        there; None for links in circles.
        """
        stack, links = [(b"", ROOT)], 0
        todo = path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            here = stack[-1][1]
            if name in (b"", b"."):
                continue
            if name == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            found = self.names(here).get(name) if here & DIRECTORY else None
            if found is None:
                return stack, _lexical([name, *todo[::-1]])
            target = self._link(found) if (follow or todo) and not found & DIRECTORY else None
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    return None
                stack = stack[:1] if target.startswith(b"/") else stack
                names = target.split(b"/")
                self._count_link_steps(len(names))
                todo += names[::-1]
                continue
            stack.append((name, found))
        return stack, []

    def _count_link_steps(self, count: int) -> None:
        self._link_steps += count
        most = self._limits.layer_link_steps
        if self._link_steps > most:
            raise LimitExceeded(
                f"symbolic links on the way to entries have more names than limits.layer_link_steps ({most})"
            )
        self.work(count)

    def work(self, count: int) -> None:
        """Count work, in names, and look for cancellation from time to time."""
        self._unchecked += count
        if self._unchecked > _OFTEN:
            self._unchecked = 0
            check_cancelled()

    def _link(self, code: int) -> bytes | None:
        """Where an entry leads to, if it is a symbolic link."""
        entry = MergedEntry(self._lookup, code).entry
        return entry.link if entry.kind is EntryKind.SYMLINK else None

    def tree(self) -> MergedTree:
        """The tree of all layers."""
        packed = PackedDirectories()
        links: Counter[int] = Counter()
        numbers = {0: 0}
        todo, done = [0], _GrowingDirectory()
        for old in todo:  # grows on the way
            directory = self._directories[old]
            names = directory.pack()
            codes = directory.codes
            self.work(1 + len(codes))
            for position, code in enumerate(codes):
                if code & DIRECTORY:
                    todo.append(code ^ DIRECTORY)
                    numbers[code ^ DIRECTORY] = len(numbers)
                    codes[position] = numbers[code ^ DIRECTORY] | DIRECTORY
                elif code in self._shared:
                    links[code] += 1
            packed.add(directory.layer, directory.place, names, codes)
            self._directories[old] = done
        return MergedTree(
            self._layers, packed, {code: count for code, count in links.items() if count != 1}
        )


def _lexical(names: list[bytes]) -> list[bytes]:
    """Names that are not there, with `..` taken as text, since there is nothing that could be a
    link.
    """
    kept: list[bytes] = []
    for name in names:
        if name == b"..":
            del kept[-1:]
        elif name not in (b"", b"."):
            kept.append(name)
    return kept
