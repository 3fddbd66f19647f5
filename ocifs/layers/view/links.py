"""Targets of symbolic links that stay inside a root filesystem at any mount point.

`/etc/passwd` in `usr/lib` becomes `../../etc/passwd`. A `..` that would leave the root stays at the
root, as in a process with this root (path_resolution(7)).

Rules that hold here:

- Pure: called from the event loop when a link is created or looked up.
- A target that stays inside is shown unchanged.
- Whether it stays inside is decided by following it in the tree, including the links on its path:
  if `x` is a link, `x/..` is not the directory that contains `x`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ocifs.layers.index.entry import EntryKind
from ocifs.layers.merge.tree import DIRECTORY, MergedEntry

# As many as Linux follows. Beyond it the kernel itself reports ELOOP.
_MAX_LINKS = 40


def rebase_target(
    root: MergedEntry,
    directory: tuple[bytes, ...],
    target: bytes,
    ancestors: Sequence[MergedEntry] | None = None,
    on_lookup: Callable[[MergedEntry], None] = lambda directory: None,
) -> bytes:
    """The target to show for a link in `directory`, a path of names from the root.

    `ancestors`: the directories on this path, from the root to the last one, if they are known.
    `on_lookup` is called before a name is looked up in a directory.
    """
    absolute = target.startswith(b"/")
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = [b".."] * len(directory)
    if b".." in parts:
        last = len(parts) - parts[::-1].index(b"..")
        start = () if absolute else directory
        stack = [root] if absolute else list(ancestors or _entries(root, directory))
        escapes, reached, rest = _follow(stack, start, parts[:last], on_lookup)
        if escapes:
            return _joined([*up, *reached, *rest, *parts[last:]], target)
    return _joined([*up, *parts], target) if absolute else target


def _joined(parts: list[bytes], target: bytes) -> bytes:
    """The parts as a path, with a slash at its end if the target requires a directory."""
    end = b"/" if target.strip(b"/") and target.endswith((b"/", b"/.")) else b""
    return (b"/".join(parts) or b".") + end


def _follow(
    stack: list[MergedEntry],
    directory: tuple[bytes, ...],
    parts: list[bytes],
    on_lookup: Callable[[MergedEntry], None],
) -> tuple[bool, tuple[bytes, ...], list[bytes]]:
    """Follow `parts` from a directory. `stack`: the entries on its path, starting with the root.

    Returns whether they leave the root, the directory reached without leaving it, and the parts
    that could not be followed.
    """
    root, names = stack[0], list(directory)
    # The names to follow, last first, each with whether it is part of the link itself.
    pending = [(part, True) for part in parts[::-1]]
    escapes, links = False, 0
    while pending:
        part, own = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not names:
                escapes = escapes or own
            else:
                names.pop()
                stack.pop()
            continue
        on_lookup(stack[-1])
        children = stack[-1].children
        child = None if children is None else children.get(part)
        if child is None or links > _MAX_LINKS:
            return escapes, tuple(names), [part, *(name for name, _ in pending[::-1])]
        # A directory is recognized without its entry, which may be in any block of its layer.
        entry = None if child.code & DIRECTORY else child.entry
        if entry is not None and entry.kind is EntryKind.SYMLINK:
            links += 1
            if entry.link.startswith(b"/"):
                names, stack = [], [root]
            pending += [(name, False) for name in entry.link.split(b"/")[::-1]]
            continue
        names.append(part)
        stack.append(child)
    return escapes, tuple(names), []


def _entries(root: MergedEntry, directory: tuple[bytes, ...]) -> list[MergedEntry]:
    stack = [root]
    for name in directory:
        children = stack[-1].children
        assert children is not None
        stack.append(children[name])
    return stack
