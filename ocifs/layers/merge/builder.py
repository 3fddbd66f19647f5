"""A tree under construction: numbered directories, path resolution, and packing.

`apply.py` fills it in a worker thread, and a `GrowingTree` belongs to that thread. A directory in
use is a dictionary of names. Directories that were not used for a while are packed, so that a
million entries take little memory also during the merge.

Rules:

- Pure.
- No path leads above the root.
- A path through more than _MAX_LINKS symbolic links is a loop.
- `names` is valid until the next `pack_idle`.
- Resolving targets of links visits at most limits.layer_link_steps names in total: each entry
  behind a link resolves its target again.
- Long operations check for cancellation.
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
_MAX_LINKS = 255  # for one path, as in unpackers written in Go
OPEN = 32
"""Directories that remain unpacked in `pack_idle`."""
_CHECK_INTERVAL = 1 << 16  # names that are visited between two checks for cancellation
MANY = 2 * OPEN
"""The number of unpacked directories above which `pack_idle` must be called."""


class _GrowingDirectory:
    """A directory: its names and their codes in a dictionary, or packed."""

    __slots__ = ("_names", "codes", "layer", "open", "position")

    def __init__(self, layer: int = NOWHERE, position: int = 0) -> None:
        self.layer = layer
        self.position = position
        self.open: dict[bytes, int] | None = {}
        self._names = b""
        self.codes = array("Q")

    def unpack(self) -> dict[bytes, int]:
        """Convert to a dictionary."""
        names = dict(zip(self._names.split(b"/"), self.codes, strict=True)) if self.codes else {}
        self.open, self._names, self.codes = names, b"", array("Q")
        return names

    def pack(self) -> bytes:
        """Convert to columns; return the joined names, which belong to `codes`."""
        if self.open is not None:
            self._names, self.codes, self.open = (
                b"/".join(self.open),
                array("Q", self.open.values()),
                None,
            )
        return self._names


class GrowingTree:
    """The tree of the layers that were applied so far."""

    def __init__(self, layers: Sequence[LayerIndex], limits: Limits) -> None:
        self._layers = tuple(layers)
        # An empty tree of the same layers, to look entries up by their codes.
        self._lookup = MergedTree(self._layers, PackedDirectories(), {})
        self._limits = limits
        self._implied = 0
        self._link_steps = 0
        self._unchecked = 0  # names visited since the last check for cancellation
        self._directories = [_GrowingDirectory()]
        self.open: list[_GrowingDirectory] = []  # those in use
        self._shared: set[int] = set()  # codes that hard links lead to

    def share(self, code: int) -> None:
        """Record that an entry has several names."""
        self._shared.add(code)

    def describe(self, code: int, layer: int, position: int) -> None:
        """Set the entry with the attributes of a directory."""
        directory = self._directories[code ^ DIRECTORY]
        directory.layer, directory.position = layer, position

    def find(self, path: bytes, *, follow: bool = False) -> int | None:
        """Resolve a path to a code; None if it does not exist.

        Symbolic links are followed, at the end of the path only with `follow`.
        """
        walked = self.walk(path, follow=follow)
        return None if walked is None or walked[1] else walked[0][-1][1]

    def make(self) -> int:
        """Create an empty directory; return its code."""
        directory = _GrowingDirectory()
        self._directories.append(directory)
        self.open.append(directory)
        return len(self._directories) - 1 | DIRECTORY

    def imply(self) -> int:
        """Create a directory without an entry. A path of 1 MB could imply millions of them."""
        self._implied += 1
        most = self._limits.implied_directories
        if self._implied > most:
            raise LimitExceeded(
                f"more directories are implied than limits.implied_directories ({most})"
            )
        return self.make()

    def names(self, code: int) -> dict[bytes, int]:
        """Return the names of a directory, which may be modified until the next `pack_idle`."""
        directory = self._directories[code ^ DIRECTORY]
        if directory.open is None:
            self.open.append(directory)
            self.work(len(directory.codes))
            return directory.unpack()
        return directory.open

    def pack_idle(self) -> None:
        """Pack all directories except the last used ones.

        Call it when `open` has more than MANY: one path can unpack thousands.
        """
        idle = max(0, len(self.open) - OPEN)
        for directory in self.open[:idle]:
            directory.pack()
        del self.open[:idle]

    def walk(
        self, path: bytes, *, follow: bool
    ) -> tuple[list[tuple[bytes, int]], list[bytes]] | None:
        """Resolve a path as far as it exists.

        Returns the names and codes from the root, and the names that do not exist; None for a loop
        of symbolic links.
        """
        stack, links = [(b"", ROOT)], 0
        todo = path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            code = stack[-1][1]
            if name in (b"", b"."):
                continue
            if name == b"..":
                # The root is its own parent.
                del stack[max(1, len(stack) - 1) :]
                continue
            # Below anything except a directory nothing exists.
            child = self.names(code).get(name) if code & DIRECTORY else None
            if child is None:
                return stack, _lexical([name, *todo[::-1]])
            target = self._link(child) if (follow or todo) and not child & DIRECTORY else None
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    return None
                # An absolute target starts at the root of the tree, never at that of the host.
                stack = stack[:1] if target.startswith(b"/") else stack
                names = target.split(b"/")
                self._count_link_steps(len(names))
                todo += names[::-1]
                continue
            stack.append((name, child))
        return stack, []

    def _count_link_steps(self, count: int) -> None:
        self._link_steps += count
        most = self._limits.layer_link_steps
        if self._link_steps > most:
            raise LimitExceeded(
                "paths through symbolic links have more names than"
                f" limits.layer_link_steps ({most})"
            )
        self.work(count)

    def work(self, count: int) -> None:
        """Count visited names, and check for cancellation at intervals."""
        self._unchecked += count
        if self._unchecked > _CHECK_INTERVAL:
            self._unchecked = 0
            check_cancelled()

    def _link(self, code: int) -> bytes | None:
        """Return the target of an entry, if it is a symbolic link."""
        entry = MergedEntry(self._lookup, code).entry
        return entry.link if entry.kind is EntryKind.SYMLINK else None

    def tree(self) -> MergedTree:
        """Return the packed tree."""
        packed = PackedDirectories()
        links: Counter[int] = Counter()
        numbers = {0: 0}
        # The list grows while it is iterated: directories are numbered breadth first.
        todo, emptied = [0], _GrowingDirectory()
        for old in todo:
            directory = self._directories[old]
            names = directory.pack()
            codes = directory.codes
            self.work(1 + len(codes))
            for position, code in enumerate(codes):
                if code & DIRECTORY:
                    todo.append(code ^ DIRECTORY)
                    numbers[code ^ DIRECTORY] = len(numbers)
                    codes[position] = numbers[code ^ DIRECTORY] | DIRECTORY
                # Names are counted here, since later layers may have removed some of them.
                elif code in self._shared:
                    links[code] += 1
            packed.add(directory.layer, directory.position, names, codes)
            # Releases the memory of the directory while the packed columns grow.
            self._directories[old] = emptied
        return MergedTree(
            self._layers, packed, {code: count for code, count in links.items() if count != 1}
        )


def _lexical(names: list[bytes]) -> list[bytes]:
    """Apply `..` to names that do not exist, and therefore cannot be links."""
    remaining: list[bytes] = []
    for name in names:
        if name == b"..":
            del remaining[-1:]
        elif name not in (b"", b"."):
            remaining.append(name)
    return remaining
