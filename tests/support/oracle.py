"""The comparison of two directory trees: everything that stat, readlink, getxattr and read return.

Rules that hold here:
- Links are never followed, and devices are never opened.
- A difference is reported with the values of both sides.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Facts:
    """The properties of one path. `names` are all paths of its inode."""

    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    nlink: int
    rdev: int
    target: bytes
    content: str
    xattrs: tuple[tuple[str, bytes], ...]
    names: tuple[bytes, ...]


def facts(root: Path) -> dict[bytes, Facts]:
    """The facts of every path below a directory, and of the directory as an empty path."""
    found = dict(_walk(os.fsencode(root)))
    same: dict[int, list[bytes]] = {}
    for path, status in found.items():
        if not stat.S_ISDIR(status.st_mode):
            same.setdefault(status.st_ino, []).append(path)
    names = {number: tuple(sorted(paths)) for number, paths in same.items()}
    return {path: _facts(os.fsencode(root), path, status, names) for path, status in found.items()}


def differences(ours: dict[bytes, Facts], theirs: dict[bytes, Facts]) -> list[str]:
    """The differences, as lines."""
    lines = [f"only in ours: {path!r}" for path in sorted(ours.keys() - theirs.keys())]
    lines += [f"only in theirs: {path!r}" for path in sorted(theirs.keys() - ours.keys())]
    for path in sorted(ours.keys() & theirs.keys()):
        mine, other = ours[path], theirs[path]
        for field in Facts.__dataclass_fields__:
            if getattr(mine, field) != getattr(other, field):
                values = f"ours {getattr(mine, field)!r}, theirs {getattr(other, field)!r}"
                lines.append(f"{path!r} {field}: {values}"[:400])
    return lines


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.lstat(root)
    todo = [b""]
    while todo:
        here = todo.pop()
        for name in os.listdir(os.path.join(root, here)):
            path = os.path.join(here, name)
            status = os.lstat(os.path.join(root, path))
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                todo.append(path)


def _facts(
    root: bytes, path: bytes, status: os.stat_result, names: dict[int, tuple[bytes, ...]]
) -> Facts:
    place = os.path.join(root, path) if path else root
    is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
    is_directory = stat.S_ISDIR(status.st_mode)
    content = ""
    if is_file:
        with open(place, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    return Facts(
        mode=status.st_mode,
        owner=(status.st_uid, status.st_gid),
        size=status.st_size if is_file or is_link else 0,
        mtime_ns=status.st_mtime_ns,
        nlink=0
        if is_directory
        else status.st_nlink,  # the link counts of directories depend on the file system
        rdev=status.st_rdev,
        target=os.readlink(place) if is_link else b"",
        content=content,
        xattrs=tuple(
            sorted(
                (name, os.getxattr(place, name, follow_symlinks=False)) for name in _xattrs(place)
            )
        ),
        names=() if is_directory else names[status.st_ino],
    )


def _xattrs(place: bytes) -> list[str]:
    return os.listxattr(place, follow_symlinks=False)
