"""Layers laid over each other: a pure function from indices to one tree (image-spec, layer.md
"Applying Changesets").

A layer is applied in three steps, whatever the order of its tar:

1. Its directories take the place of links and files below. A directory of the layer is never a way
  into what a link below leads to, so
   that a whiteout in it leaves the link's target alone. This is what overlayfs shows of the same
   upper directory.
2. Its whiteouts take away what lower layers have.
3. Its entries are applied in order. A parent that is a symbolic link is followed within the root,
  as tools that unpack do.

Steps 1 and 2 go from the root down and remember the parents that they found, so that a path is
walked at most once per parent.

Rules that hold here: pure; a whiteout is never visible; nothing leads above the root; names of a
hard link lead to the same thing. In a single layer shown by itself a hard link whose target lies in
a lower layer is a symbolic link to that name. Directories that were not used for a while are packed
(`growing.py`).
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
    place_of,
    upward,
)
from ocifs.settings import Limits

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # what AUFS kept for itself
_PARENTS = 1 << 16  # directories that are remembered by their paths at a time
# a path of more names is walked from the root: a copy of each of its beginnings would cost the
# square of its length
_DEEP = 100


def merge(
    layers: Sequence[LayerIndex], limits: Limits, *, markers: bool = True, alone: bool = False
) -> MergedTree:
    """Lay layers over each other, lowest first.

    Without `markers`, names that begin with `.wh.` are names like others.

    `alone`: this is one layer of several, shown by itself. Raises Malformed where entries cannot be
    applied (links in circles on the way to one, a hard link to nothing), and LimitExceeded where
    directories that no entry makes are too many.
    """
    if len(layers) > LAYERS:
        raise LimitExceeded(
            f"{len(layers)} layers are more than can be laid over each other ({LAYERS})"
        )
    stack = _Merger(layers, limits, alone=alone)
    for number, layer in enumerate(layers):
        stack.apply(number, layer.entries, markers)
    return stack.tree()


class _Merger(GrowingTree):
    """The tree of the layers so far."""

    def __init__(self, layers: Sequence[LayerIndex], limits: Limits, *, alone: bool) -> None:
        super().__init__(layers, limits)
        self._exclusively = alone
        self._layer = 0
        self._plinks: dict[bytes, int] = {}
        self._parents: dict[
            bytes, int | None
        ] = {}  # by their paths; only valid while a layer is prepared
        # The directory of the entry before, by its path: entries come directory by directory.
        self._last = (b"", ROOT)

    def apply(self, number: int, entries: Sequence[LayerEntry], markers: bool) -> None:
        self._layer = number
        self._plinks = {}
        self._last = (b"", ROOT)
        removed = self._prepare(entries, markers) if number else {}
        for place, entry in enumerate(entries):
            self.work(1)
            if markers and b".wh." in entry.path and self._is_marker(place, entry):
                continue
            self._put(place, entry, removed.get(place))
            if len(self.open) > MANY:
                self.pack_idle()

    def _prepare(self, entries: Sequence[LayerEntry], markers: bool) -> dict[int, int]:
        """Change the layers below by the layer's directories and whiteouts.

        Returns the targets of its hard links before that change.
        """
        targets: dict[int, int] = {}
        made: list[bytes] = []
        whiteouts: list[bytes] = []
        for place, entry in enumerate(entries):
            self.work(1)
            kind = entry.kind
            if kind is EntryKind.HARDLINK:
                found = self.find(entry.link)
                if found is not None:
                    targets[place] = found
                if len(self.open) > MANY:
                    self.pack_idle()
            if markers and b".wh." in entry.path:
                if entry.path.rpartition(b"/")[2].startswith(_WHITEOUT):
                    whiteouts.append(entry.path)
            elif kind is EntryKind.DIRECTORY:
                made.append(entry.path)
        made.sort(key=_depth)
        for path in made:
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
        """Put an empty directory in the place of a link or a file.

        What is missing, or a directory already, stays as it is.
        """
        parent, _, name = path.rpartition(b"/")
        here = self._lower_directory(parent)
        if here is None:
            return
        names = self.names(here)
        code = names.get(name)
        if code is not None and not code & DIRECTORY:
            names[name] = self.make()
            self._parents.clear()  # some may have been found through the link

    def _white_out(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        below = self._lower_directory(parent)
        if below is None:
            return
        if name == _OPAQUE:
            self.names(below).clear()
        elif not name.startswith(_AUFS):
            self.names(below).pop(name[len(_WHITEOUT) :], None)

    def _lower_directory(self, path: bytes) -> int | None:
        """The directory that a path leads to in the tree below, with links followed; None if there
        is none.
        """
        known = self._parents
        if path in known:
            return known[path]
        parent, _, name = path.rpartition(b"/")
        found: int | None
        if not path:
            found = ROOT
        elif parent not in known and path.count(b"/") > _DEEP:
            found = self.find(path, follow=True)
        elif (above := self._lower_directory(parent)) is None:
            found = None
        else:
            found = self.names(above).get(name)
            if found is not None and not found & DIRECTORY:
                found = self.find(path, follow=True)
        if found is not None and not found & DIRECTORY:
            found = None
        if len(known) >= _PARENTS:
            known.clear()
        known[path] = found
        return found

    def _is_marker(self, place: int, entry: LayerEntry) -> bool:
        """Whether an entry is a whiteout or AUFS' own, or lies in one; the latter may be what hard
        links of this layer mean.
        """
        parts = entry.path.split(b"/")
        if (
            parts[-1] == _WHITEOUT
        ):  # umoci takes it for one of its directory (image-spec, layer.md "Whiteouts")
            raise Malformed(
                f"layer {self._layer} has a whiteout without a name: {_show(entry.path)}"
            )
        if not any(part.startswith(_WHITEOUT) for part in parts):
            return False
        if entry.path.startswith(_AUFS) and entry.kind is EntryKind.FILE:
            self._plinks[entry.path] = code_of(self._layer, place)
        return True

    def _put(self, place: int, entry: LayerEntry, removed: int | None) -> None:
        if not entry.path:
            if entry.kind is EntryKind.DIRECTORY:
                self.describe(ROOT, self._layer, place)
            return
        parent, _, name = entry.path.rpartition(b"/")
        last, here = self._last
        if parent != last:
            here = self._directory(parent)
            self._last = parent, here
        names = self.names(here)
        if entry.kind is EntryKind.HARDLINK:
            code = self._target(place, entry, removed)
        elif entry.kind is EntryKind.DIRECTORY:
            there = names.get(name, 0)
            code = there if there & DIRECTORY else self.make()
            self.describe(code, self._layer, place)
        else:
            code = code_of(self._layer, place)
        if names.get(name, code) != code:
            self._last = (b"", ROOT)  # the way there may lead elsewhere now
        # A name that is given anew stands where it stood in the dictionary; the order of a listing
        # means nothing.
        names[name] = code

    def _target(self, place: int, entry: LayerEntry, removed: int | None) -> int:
        target = self._plinks.get(entry.link)
        if target is None:
            target = self.find(entry.link)
        if removed is not None and (target is None or target & DIRECTORY):
            target = removed
        if self._exclusively and (target is None or target & UPWARD):
            up = _depth(entry.path)
            if up > UP_MOST:
                raise LimitExceeded(f"an entry of the layer lies deeper than {UP_MOST} directories")
            # A link to such a link is one to the same name, seen from another directory.
            first = code_of(self._layer, place) if target is None else code_of(*place_of(target))
            return upward(first, up)
        if target is not None and not target & DIRECTORY:
            self.share(target)
            return target
        what = "a directory" if target is not None else "nothing"
        raise Malformed(
            f"layer {self._layer} has a hard link {_show(entry.path)} to {what}: {_show(entry.link)}"
        )

    def _directory(self, path: bytes) -> int:
        """The code of a directory, which is made where it is missing, and takes the place of what
        is none.
        """
        if not path:
            return ROOT
        walked = self.walk(path, follow=True)
        if walked is None:
            raise Malformed(
                f"layer {self._layer} has an entry behind links that lead in circles: {_show(path)}"
            )
        stack, todo = walked
        name, here = stack[-1]
        if not here & DIRECTORY:  # a file where the layer has a directory: the upper one holds
            todo = [name, *todo]
            here = stack[-2][1]
        for name in todo:
            made = self.imply()
            self.names(here)[name] = made
            here = made
        return here


def _depth(path: bytes) -> int:
    return path.count(b"/")


def _show(path: bytes) -> str:
    return repr(path.decode(errors="replace"))[:200]
