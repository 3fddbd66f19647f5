"""Links of a root filesystem, shown so that they stay inside it wherever it is mounted.

`/etc/passwd` in `usr/lib` becomes `../../etc/passwd`; a `..` that would leave the root stays at it,
as it would for a process whose root this is (path_resolution(7)).

Rules that hold here: pure; a target that stays inside by itself is shown as it is; whether it does
is decided by following it in the tree, links on the way included, since `x/..` is not where `x`
stands when `x` is a link.
"""

from __future__ import annotations

from ocifs.layers.index.entry import EntryKind
from ocifs.layers.merge.tree import MergedEntry

_MAX_LINKS = 40  # what Linux follows; beyond it the kernel says ELOOP by itself


def rebase_target(root: MergedEntry, where: tuple[bytes, ...], target: bytes) -> bytes:
    """The target to show for a link that stands in the directory `where`, given by names from the
    root.
    """
    absolute = target.startswith(b"/")
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = [b".."] * len(where)
    if b".." in parts:
        last = len(parts) - parts[::-1].index(b"..")
        left, reached, rest = _follow(root, () if absolute else where, parts[:last])
        if left:
            return _joined([*up, *reached, *rest, *parts[last:]], target)
    return _joined([*up, *parts], target) if absolute else target


def _joined(parts: list[bytes], target: bytes) -> bytes:
    """The parts as a path, to a directory alone where the target says so by its end."""
    end = b"/" if target.strip(b"/") and target.endswith((b"/", b"/.")) else b""
    return (b"/".join(parts) or b".") + end


def _follow(
    root: MergedEntry, where: tuple[bytes, ...], parts: list[bytes]
) -> tuple[bool, tuple[bytes, ...], list[bytes]]:
    """Whether `parts`, followed from `where`, leave the root; the directory reached without
    leaving; what could not be followed.
    """
    stack = _items(root, where)
    names = list(where)
    todo = [
        (part, True) for part in parts[::-1]
    ]  # with each name, whether it is of the link itself
    left, links = False, 0
    while todo:
        part, own = todo.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not names:
                left = left or own
            else:
                names.pop()
                stack.pop()
            continue
        children = stack[-1].children
        found = None if children is None else children.get(part)
        if found is None or links > _MAX_LINKS:
            return left, tuple(names), [part, *(name for name, _ in todo[::-1])]
        if found.entry.kind is EntryKind.SYMLINK:
            links += 1
            if found.entry.link.startswith(b"/"):
                names, stack = [], [root]
            todo += [(name, False) for name in found.entry.link.split(b"/")[::-1]]
            continue
        names.append(part)
        stack.append(found)
    return left, tuple(names), []


def _items(root: MergedEntry, where: tuple[bytes, ...]) -> list[MergedEntry]:
    stack = [root]
    for name in where:
        children = stack[-1].children
        assert children is not None
        stack.append(children[name])
    return stack
