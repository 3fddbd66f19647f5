"""Merges layers: a pure function from indexes to one tree (image-spec, layer.md "Applying
Changesets").

A layer is applied in three steps, independent of the order of its tar:

1. Its directories replace links and files of lower layers. A directory of the layer is never a path
   into the target of a lower link, so a whiteout in it does not affect the target. overlayfs shows
   the same for such an upper directory.
2. Its whiteouts remove entries of lower layers.
3. Its entries are applied in order. A parent that is a symbolic link is followed within the root,
   as in tools that unpack.

Steps 1 and 2 process paths from the root down and remember the parents, so that a path is resolved
at most once per parent.

A worker thread calls `merge`. The state of a merge is in a `_Merger`, and discarded at its end.

Rules:

- Pure.
- A whiteout is never visible.
- No path leads above the root.
- All names of a hard link lead to the same entry.
- In a single layer that is shown alone, a hard link to an entry of a lower layer is a symbolic link
  to that name.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex
from ocifs.layers.merge.builder import MANY, ROOT, GrowingTree
from ocifs.layers.merge.tree import (
    DIRECTORY,
    LAYERS,
    UP_MOST,
    UPWARD,
    MergedTree,
    code_of,
    position_of,
    upward,
)
from ocifs.settings import Limits

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # metadata of AUFS
_PARENTS = 1 << 16  # directories in memory by their paths
# A path of more names is resolved from the root. Remembering each of its parents would take memory
# proportional to the square of its length.
_DEEP = 100


def merge(
    layers: Sequence[LayerIndex], limits: Limits, *, markers: bool = True, alone: bool = False
) -> MergedTree:
    """Merge layers, lowest first.

    `markers`: interpret whiteouts; otherwise names that start with `.wh.` are ordinary names.
    `alone`: this is one layer of several, shown without the others. Raises Malformed for entries
    that cannot be applied (a loop of links, a hard link to a missing entry), and LimitExceeded.
    """
    if len(layers) > LAYERS:
        raise LimitExceeded(f"cannot merge {len(layers)} layers, at most {LAYERS} are supported")
    stack = _Merger(layers, limits, alone=alone)
    for number, layer in enumerate(layers):
        stack.apply(number, layer.entries, markers)
    return stack.tree()


class _Merger(GrowingTree):
    """The tree of the layers so far."""

    def __init__(self, layers: Sequence[LayerIndex], limits: Limits, *, alone: bool) -> None:
        super().__init__(layers, limits)
        self._alone = alone
        self._layer = 0
        # Files in AUFS' own directories, which are only visible through hard links.
        self._plinks: dict[bytes, int] = {}
        # Directories by their paths, only valid while a layer is prepared. A dictionary that
        # is cleared when it is full: an LRU cache would cost more than resolving paths again.
        self._parents: dict[bytes, int | None] = {}
        # The path and code of the last entry's directory: entries are sorted by directory.
        self._last = (b"", ROOT)

    def apply(self, number: int, entries: Sequence[LayerEntry], markers: bool) -> None:
        """Apply the entries of a layer."""
        self._layer = number
        self._plinks = {}
        self._last = (b"", ROOT)
        removed = self._prepare(entries, markers) if number else {}
        for position, entry in enumerate(entries):
            self.work(1)
            if markers and b".wh." in entry.path and self._is_marker(position, entry):
                continue
            self._put(position, entry, removed.get(position))
            if len(self.open) > MANY:
                self.pack_idle()

    def _prepare(self, entries: Sequence[LayerEntry], markers: bool) -> dict[int, int]:
        """Apply the layer's directories and whiteouts to the lower layers.

        Returns the targets of its hard links before this change.
        """
        targets: dict[int, int] = {}
        directories: list[bytes] = []
        whiteouts: list[bytes] = []
        for position, entry in enumerate(entries):
            self.work(1)
            kind = entry.kind
            # A layer can replace a file and link to the lower one, so targets are resolved first.
            if kind is EntryKind.HARDLINK:
                target = self.find(entry.link)
                if target is not None:
                    targets[position] = target
                if len(self.open) > MANY:
                    self.pack_idle()
            if markers and b".wh." in entry.path:
                if entry.path.rpartition(b"/")[2].startswith(_WHITEOUT):
                    whiteouts.append(entry.path)
            elif kind is EntryKind.DIRECTORY:
                directories.append(entry.path)
        # From the root down, so that a parent is replaced before paths below it are resolved.
        directories.sort(key=_depth)
        for path in directories:
            self.work(1)
            self._replace_by_directory(path)
            if len(self.open) > MANY:
                self.pack_idle()
        whiteouts.sort(key=_depth)
        self._parents.clear()
        for path in whiteouts:
            self.work(1)
            self._white_out(path)
            if len(self.open) > MANY:
                self.pack_idle()
        self._parents.clear()
        return targets

    def _replace_by_directory(self, path: bytes) -> None:
        """Replace a link or a file by an empty directory. Do nothing for other paths."""
        parent, _, name = path.rpartition(b"/")
        directory = self._lower_directory(parent)
        if directory is None:
            return
        names = self.names(directory)
        code = names.get(name)
        if code is not None and not code & DIRECTORY:
            names[name] = self.make()
            # Some of them may have been resolved through the link.
            self._parents.clear()

    def _white_out(self, path: bytes) -> None:
        """Apply a whiteout to the lower layers."""
        parent, _, name = path.rpartition(b"/")
        directory = self._lower_directory(parent)
        if directory is None:
            return
        if name == _OPAQUE:
            self.names(directory).clear()
        elif not name.startswith(_AUFS):
            self.names(directory).pop(name[len(_WHITEOUT) :], None)

    def _lower_directory(self, path: bytes) -> int | None:
        """Resolve a directory in the lower layers, following links; None if it does not exist."""
        known = self._parents
        if path in known:
            return known[path]
        parent, _, name = path.rpartition(b"/")
        code: int | None
        if not path:
            code = ROOT
        elif parent not in known and path.count(b"/") > _DEEP:
            code = self.find(path, follow=True)
        elif (above := self._lower_directory(parent)) is None:
            code = None
        else:
            code = self.names(above).get(name)
            # A symbolic link: resolve the whole path, relative to the directory of the link.
            if code is not None and not code & DIRECTORY:
                code = self.find(path, follow=True)
        if code is not None and not code & DIRECTORY:
            code = None
        if len(known) >= _PARENTS:
            known.clear()
        known[path] = code
        return code

    def _is_marker(self, position: int, entry: LayerEntry) -> bool:
        """Whether an entry is a whiteout or metadata of AUFS, or below one.

        Hard links of this layer can have metadata of AUFS as their targets, which are recorded.
        """
        parts = entry.path.split(b"/")
        # umoci interprets it as a whiteout of its directory (image-spec, layer.md "Whiteouts").
        if parts[-1] == _WHITEOUT:
            path = _show(entry.path)
            raise Malformed(f"layer {self._layer} has a whiteout without a name: {path}")
        if not any(part.startswith(_WHITEOUT) for part in parts):
            return False
        if entry.path.startswith(_AUFS) and entry.kind is EntryKind.FILE:
            self._plinks[entry.path] = code_of(self._layer, position)
        return True

    def _put(self, position: int, entry: LayerEntry, removed: int | None) -> None:
        """Add an entry to the tree. `removed`: the target of a hard link before `_prepare`."""
        if not entry.path:
            if entry.kind is EntryKind.DIRECTORY:
                self.describe(ROOT, self._layer, position)
            return
        parent, _, name = entry.path.rpartition(b"/")
        last, directory = self._last
        if parent != last:
            directory = self._directory(parent)
            self._last = parent, directory
        names = self.names(directory)
        if entry.kind is EntryKind.HARDLINK:
            code = self._target(position, entry, removed)
        elif entry.kind is EntryKind.DIRECTORY:
            existing = names.get(name, 0)
            code = existing if existing & DIRECTORY else self.make()
            self.describe(code, self._layer, position)
        else:
            code = code_of(self._layer, position)
        if names.get(name, code) != code:
            # The path of the last directory may resolve differently now.
            self._last = (b"", ROOT)
        names[name] = code

    def _target(self, position: int, entry: LayerEntry, removed: int | None) -> int:
        """Return the code for a hard link: that of its target, or of a link to a lower layer."""
        target = self._plinks.get(entry.link)
        if target is None:
            target = self.find(entry.link)
        # The target was removed or replaced by this layer, but the link still refers to it.
        if removed is not None and (target is None or target & DIRECTORY):
            target = removed
        if self._alone and (target is None or target & UPWARD):
            # A hard link to such a link has the same target, relative to another directory.
            first = (self._layer, position) if target is None else position_of(target)
            return _upward_link(code_of(*first), entry.path)
        if target is not None and not target & DIRECTORY:
            self.share(target)
            return target
        problem = "a directory" if target is not None else "a missing entry"
        raise Malformed(
            f"layer {self._layer} has a hard link {_show(entry.path)}"
            f" to {problem}: {_show(entry.link)}"
        )

    def _directory(self, path: bytes) -> int:
        """Return the code of a directory. Create it if it is missing or not a directory."""
        if not path:
            return ROOT
        walked = self.walk(path, follow=True)
        if walked is None:
            raise Malformed(
                f"layer {self._layer} has an entry behind a loop of symbolic links: {_show(path)}"
            )
        stack, missing = walked
        name, code = stack[-1]
        # The layer has a directory in place of a lower file.
        if not code & DIRECTORY:
            missing = [name, *missing]
            code = stack[-2][1]
        for name in missing:
            child = self.imply()
            self.names(code)[name] = child
            code = child
        return code


def _upward_link(code: int, path: bytes) -> int:
    """Return the code for a hard link at `path` to a lower layer. Raises LimitExceeded."""
    up = _depth(path)
    if up > UP_MOST:
        raise LimitExceeded(f"an entry of the layer is below more than {UP_MOST} directories")
    return upward(code, up)


def _depth(path: bytes) -> int:
    return path.count(b"/")


def _show(path: bytes) -> str:
    return repr(path.decode(errors="replace"))[:200]
