"""Stacks of layers for tests, and their merged trees as plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.layers.index.entry import Kind, LayerIndex, Member
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import Item, Tree
from ocifs.oci.digest import Digest
from ocifs.settings import Limits


def layer(*members: Member) -> LayerIndex:
    return LayerIndex(members, Digest.of(b""), 0, "none")


def directory(path: str, mode: int = 0o755) -> Member:
    return Member(path.encode(), Kind.DIRECTORY, mode)


def file(path: str, mtime: int = 0) -> Member:
    """A file; its time tells it from others of the same name."""
    return Member(path.encode(), Kind.FILE, 0o644, mtime_ns=mtime)


def symlink(path: str, target: str) -> Member:
    return Member(path.encode(), Kind.SYMLINK, 0o777, link=target.encode())


def hardlink(path: str, target: str) -> Member:
    return Member(path.encode(), Kind.HARDLINK, 0o644, link=target.encode())


def items(tree: Tree) -> dict[str, Item]:
    """Every path below the root."""
    found: dict[str, Item] = {}
    todo = [("", tree.root)]
    while todo:
        path, item = todo.pop()
        for name, child in (item.children or {}).items():
            below = f"{path}/{name.decode()}" if path else name.decode()
            found[below] = child
            todo.append((below, child))
    return found


def merged(*layers: Sequence[Member], markers: bool = True, alone: bool = False) -> dict[str, Item]:
    return items(
        merge([layer(*members) for members in layers], Limits(), markers=markers, alone=alone)
    )


def shape(*layers: Sequence[Member]) -> dict[str, tuple[str, int]]:
    """Each path with its kind and the time that tells files apart."""
    return {
        path: (item.member.kind.value, item.member.mtime_ns)
        for path, item in merged(*layers).items()
    }
