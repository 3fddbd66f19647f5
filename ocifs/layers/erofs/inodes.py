"""The inodes of an image, in their order: the root, implied directories, the entries of the layers.

`ImageInodes` visits the names of all directories once. Then it can iterate over the inodes, any
number of times, with the entries of each layer in order: no block of a packed index is decoded
twice. It holds a few bytes for each entry and directory.

An entry is one inode, with as many links as it has names. The exception is a symbolic link with
several names that needs different targets in their directories (`links inside`): each target is an
inode.

Rules:

- Pure. The worker thread that writes an image calls it.
- The same tree and options have the same inodes in the same order.
- Long operations check for cancellation.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from ocifs.concurrency import check_cancelled
from ocifs.errors import LimitExceeded
from ocifs.layers.erofs.names import directory_size, listing
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex
from ocifs.layers.index.packed import PackedEntries
from ocifs.layers.merge.tree import (
    DIRECTORY,
    LAYERS,
    NOWHERE,
    POSITION,
    UPWARD,
    MergedEntry,
    MergedTree,
    code_of,
)
from ocifs.layers.view.links import rebase_target

NONE = 0xFFFFFFFF
"""In place of the number of a directory."""
_CHECK_INTERVAL = 1 << 14
_TARGET_MOST = 4095  # Linux cuts a longer one
# Names on the paths of links, and in the directories that their targets lead through. An image of a
# million links has some ten million. At the bound, a pass over them takes about half a minute.
_WORK_MOST = 1 << 27
_SYMLINK, _DIRECTORY = EntryKind.SYMLINK, EntryKind.DIRECTORY


class Inode(NamedTuple):
    """An inode.

    - `layer`, `position`: of its entry. The layer of an implied directory is NOWHERE.
    - `directory`: its number, or NONE.
    - `links`: the link count.
    - `size`: of a directory, or of the target of a symbolic link; 0 for others.
    - `target`: of a symbolic link.
    - `directories`: of a link with several targets, the ones with this target.
    """

    layer: int
    position: int
    entry: LayerEntry
    directory: int
    links: int
    size: int = 0
    target: bytes = b""
    directories: Sequence[int] = ()


# As named tuples are created, without a call of a Python function for each.
_make_inode: Callable[[Iterable[object]], Inode] = partial(tuple.__new__, Inode)


class ImageInodes:
    """The inodes of a tree.

    `kinds` has the kind of each entry of each layer, as a letter. `parents` has the number of the
    first directory that contains the entry; for an entry that describes a directory, its number.
    `above` has the parent of each directory.
    """

    def __init__(self, tree: MergedTree, *, links_inside: bool) -> None:
        self.tree = tree
        self._links_inside = links_inside
        self.kinds = [_kinds(layer) for layer in tree.layers]
        self._parents = [array("I", [NONE]) * len(layer.entries) for layer in tree.layers]
        count = len(tree.directories.layers)
        self.above = array("I", bytes(4 * count))
        self._name_starts = array("Q", bytes(8 * count))
        self._sizes = array("Q")
        # The directories of symbolic links with several names.
        self._link_directories: dict[int, list[int]] = {}
        # The last directory of `_target`, and its path.
        self._path: tuple[int, tuple[bytes, ...], tuple[MergedEntry, ...]] = (0, (), (tree.root,))
        self._worked = self._next_check = 0
        for number in range(count):
            if not number % _CHECK_INTERVAL:
                check_cancelled()
            self._visit(number)

    def __iter__(self) -> Iterator[Inode]:
        self._worked = self._next_check = 0
        tree = self.tree
        layers = tree.directories.layers
        yield self._directory(0)
        for number in range(1, len(layers)):
            if layers[number] == NOWHERE:
                yield self._directory(number)
        for layer, index in enumerate(tree.layers):
            parents, links, base = self._parents[layer], tree.links, code_of(layer, 0)
            for position, entry in enumerate(index.entries):
                if not position % _CHECK_INTERVAL:
                    check_cancelled()
                parent = parents[position]
                if parent == NONE:
                    continue
                kind = entry.kind
                if kind is _SYMLINK:
                    yield from self._symlinks(layer, position, entry)
                elif kind is not _DIRECTORY:
                    count = links.get(base | position, 1)
                    yield _make_inode((layer, position, entry, NONE, count, 0, b"", ()))
                elif parent:
                    yield self._directory(parent, entry)

    def _visit(self, number: int) -> None:
        """Visit the names of a directory."""
        tree = self.tree
        packed, shared = tree.directories, tree.links
        layer = packed.layers[number]
        if layer != NOWHERE:
            self._parents[layer][packed.positions[number]] = number
        names, codes = listing(tree, number)
        self._sizes.append(directory_size(names))
        for code in codes:
            if code & DIRECTORY:
                continue
            if code & UPWARD:
                raise ValueError("a layer that is shown alone has no image")
            layer, position = code >> 32 & LAYERS, code & POSITION
            parents = self._parents[layer]
            if parents[position] == NONE:
                parents[position] = number
            if code in shared and self.kinds[layer][position] == ord(_SYMLINK.value):
                self._link_directories.setdefault(code, []).append(number)
        if packed.below[number]:
            self._visit_directories(number)

    def _visit_directories(self, number: int) -> None:
        """Record the parent and the name of each directory in a directory."""
        packed = self.tree.directories
        first, last = packed.code_ends[number : number + 2]
        start, stop = packed.name_ends[number : number + 2]
        names = bytes(packed.names[start:stop]).split(b"/")
        for name, code in zip(names, packed.codes[first:last], strict=True):
            if code & DIRECTORY:
                self.above[code ^ DIRECTORY] = number
                self._name_starts[code ^ DIRECTORY] = start
            start += len(name) + 1

    def _directory(self, number: int, entry: LayerEntry | None = None) -> Inode:
        tree, code = self.tree, number | DIRECTORY
        layers, positions = tree.directories.layers, tree.directories.positions
        if entry is None:
            entry = tree.entry(code)
        size, links = self._sizes[number], tree.names_of(code)
        return Inode(layers[number], positions[number], entry, number, links, size)

    def _symlinks(self, layer: int, position: int, entry: LayerEntry) -> Iterator[Inode]:
        """The inodes of a symbolic link."""
        code = code_of(layer, position)
        numbers = self._link_directories.get(code)
        if numbers is None:
            target = self._target(self._parents[layer][position], entry.link)
            yield Inode(layer, position, entry, NONE, 1, len(target), target)
            return
        by_target: dict[bytes, list[int]] = {}
        for number in numbers:
            by_target.setdefault(self._target(number, entry.link), []).append(number)
        for target, group in by_target.items():
            directories = group if len(by_target) > 1 else ()
            yield Inode(layer, position, entry, NONE, len(group), len(target), target, directories)

    def _target(self, directory: int, target: bytes) -> bytes:
        """The target of a link in a directory. Raises LimitExceeded."""
        if self._links_inside and (target.startswith(b"/") or b".." in target):
            if self._path[0] != directory:
                self._path = directory, *self._find_path(directory)
            _, names, ancestors = self._path
            # Usually, only `..` is followed, and no name is looked up.
            self._work(len(names))
            target = rebase_target(self.tree.root, names, target, ancestors, self._on_lookup)
        if len(target) > _TARGET_MOST:
            raise LimitExceeded(
                f"the target of a link in the image has more than {_TARGET_MOST} bytes,"
                " the limit of EROFS"
            )
        return target

    def _on_lookup(self, directory: MergedEntry) -> None:
        ends, number = self.tree.directories.code_ends, directory.code ^ DIRECTORY
        # The names of a directory may have to be unpacked for each lookup.
        self._work(ends[number + 1] - ends[number] if directory.code & DIRECTORY else 1)

    def _work(self, count: int) -> None:
        self._worked += count
        if self._worked > _WORK_MOST:
            raise LimitExceeded(
                f"the targets of links in the image lead past more than {_WORK_MOST} names"
            )
        if self._worked >= self._next_check:
            self._next_check = self._worked + _CHECK_INTERVAL
            check_cancelled()

    def _find_path(self, directory: int) -> tuple[tuple[bytes, ...], tuple[MergedEntry, ...]]:
        """The names and the entries on the path of a directory, starting with the root."""
        tree, packed = self.tree, self.tree.directories
        names, entries = list[bytes](), [MergedEntry(tree, directory | DIRECTORY)]
        while directory:
            above, start = self.above[directory], self._name_starts[directory]
            stop = packed.name_ends[above + 1]
            end = packed.names.find(b"/", start, stop)
            names.append(bytes(packed.names[start : stop if end < 0 else end]))
            entries.append(MergedEntry(tree, above | DIRECTORY))
            directory = above
        return tuple(names[::-1]), tuple(entries[::-1])


def _kinds(layer: LayerIndex) -> bytes:
    entries = layer.entries
    if isinstance(entries, PackedEntries):
        return entries.kinds()
    return "".join(entry.kind.value for entry in entries).encode()
