"""Stacks of layers for tests, and their merged trees as plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import MergedEntry, MergedTree
from ocifs.oci.digest import Digest
from ocifs.settings import Limits


def layer(*members: LayerEntry) -> LayerIndex:
    return LayerIndex(members, Digest.of(b""), 0, "none")


def directory(path: str, mode: int = 0o755) -> LayerEntry:
    return LayerEntry(path.encode(), EntryKind.DIRECTORY, mode)


def file(path: str, mtime: int = 0) -> LayerEntry:
    """A file. Its time distinguishes it from others of the same name."""
    return LayerEntry(path.encode(), EntryKind.FILE, 0o644, mtime_ns=mtime)


def symlink(path: str, target: str) -> LayerEntry:
    return LayerEntry(path.encode(), EntryKind.SYMLINK, 0o777, link=target.encode())


def hardlink(path: str, target: str) -> LayerEntry:
    return LayerEntry(path.encode(), EntryKind.HARDLINK, 0o644, link=target.encode())


def items(tree: MergedTree) -> dict[str, MergedEntry]:
    """Every path below the root."""
    found: dict[str, MergedEntry] = {}
    todo = [("", tree.root)]
    while todo:
        path, item = todo.pop()
        for name, child in (item.children or {}).items():
            below = f"{path}/{name.decode()}" if path else name.decode()
            found[below] = child
            todo.append((below, child))
    return found


def merged(
    *layers: Sequence[LayerEntry], markers: bool = True, alone: bool = False
) -> dict[str, MergedEntry]:
    return items(
        merge([layer(*members) for members in layers], Limits(), markers=markers, alone=alone)
    )


def shape(*layers: Sequence[LayerEntry]) -> dict[str, tuple[str, int]]:
    """Each path with its kind, and the time that distinguishes files."""
    return {
        path: (item.entry.kind.value, item.entry.mtime_ns) for path, item in merged(*layers).items()
    }
