"""The rows of `ocifs ls`: which entries are shown, in which order, as text or as JSON.

Called by `ls.py` from the event loop. Pure, except that `Style.show` writes to standard output.

- The short options have the meanings of ls(1) in GNU coreutils.
- Names are sorted by their bytes, as ls(1) does in the C locale.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ocifs.cli.terminal import write
from ocifs.printable import printable
from ocifs.tree.node import Directory, DirectoryEntry, Node, Symlink

if TYPE_CHECKING:
    from ocifs.oci.kinds.classification import Classification

_TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}
_UNITS = "KMGTPE"


@dataclass(frozen=True, slots=True)
class Row:
    """An entry, the time to show for it, and kind and type of the artifact that it leads to."""

    entry: DirectoryEntry
    mtime_ns: int
    kind: str = ""
    artifact_type: str = ""

    @property
    def name(self) -> str:
        return os.fsdecode(self.entry.name)


@dataclass(frozen=True, slots=True)
class Style:
    """The selected options of `ocifs ls`. `hidden` is `a`, `A` or empty.

    `types`: a long row also has the type of the artifact.
    """

    long: bool = False
    human: bool = False
    hidden: str = ""
    sort: str = "name"
    reverse: bool = False
    types: bool = False

    def selected(self, entries: Iterable[DirectoryEntry]) -> list[DirectoryEntry]:
        """The entries that are shown: without hidden names, unless an option asks for them."""
        return [entry for entry in entries if self.hidden or not entry.name.startswith(b".")]

    def ordered(self, rows: Iterable[Row]) -> list[Row]:
        """The rows in order. Rows that are equal in time or size are ordered by their names."""
        by_name = sorted(rows, key=lambda row: row.entry.name)
        if self.sort == "time":
            by_name.sort(key=lambda row: -row.mtime_ns)
        elif self.sort == "size":
            by_name.sort(key=lambda row: -row.entry.node.attributes.size)
        return by_name[::-1] if self.reverse else by_name

    def show(self, row: Row) -> None:
        """Write a row to standard output."""
        name = row.name
        if self.long:
            node = row.entry.node
            size = node.attributes.size
            text = human_size(size) if self.human else str(size)
            mode = stat.filemode(node.attributes.mode)
            kind = f"{row.kind or '-':<18}"
            if self.types:
                kind += f" {printable(row.artifact_type) or '-':<48}"
            name = f"{mode} {text:>12} {minute(row.mtime_ns)} {kind} {name}"
            name += f" -> {os.fsdecode(node.target)}" if isinstance(node, Symlink) else ""
        write(name)


def row_of(
    entry: DirectoryEntry, found: Classification | None = None, mtime_ns: int | None = None
) -> Row:
    """The row of an entry, with its own time by default. `found`: of the artifact it leads to."""
    time = entry.node.attributes.mtime_ns if mtime_ns is None else mtime_ns
    return Row(entry, time, found.kind, found.artifact_type) if found else Row(entry, time)


def dots(directory: Directory) -> list[DirectoryEntry]:
    """The entries `.` and `..` of a listed directory, for `ls -a`."""
    return [DirectoryEntry(name, directory) for name in (b".", b"..")]


def as_json(row: Row, parent: str) -> dict[str, object]:
    """A row for programs: the schema is in docs/reference/cli.md."""
    node = row.entry.node
    attributes = node.attributes
    return {
        "name": row.name,
        "path": f"{parent}/{row.name}".strip("/"),
        "type": type_of(node),
        "size": attributes.size,
        "mode": f"{stat.S_IMODE(attributes.mode):04o}",
        "mtime": rfc3339(row.mtime_ns),
        "target": os.fsdecode(node.target) if isinstance(node, Symlink) else None,
        "kind": row.kind or None,
        "artifact_type": row.artifact_type or None,
    }


def type_of(node: Node) -> str:
    """The type of a node, as a word."""
    return _TYPES.get(stat.S_IFMT(node.attributes.mode), "file")


def rfc3339(time_ns: int) -> str:
    """A time in seconds, as RFC 3339 text in UTC."""
    return _utc(time_ns).strftime("%Y-%m-%dT%H:%M:%SZ")


def minute(time_ns: int) -> str:
    """A time to the minute, in UTC."""
    return _utc(time_ns).strftime("%Y-%m-%d %H:%M")


def _utc(time_ns: int) -> datetime:
    seconds = time_ns // 10**9
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        # A tar can contain a time after the year 9999.
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


def human_size(size: int) -> str:
    """A size as `ls -h` shows it: `999`, `1.0K`, `12K`, `3.4G`, rounded up."""
    if size < 1024:
        return str(size)
    power = 1
    while -(-size // 1024**power) >= 1024 and power < len(_UNITS):
        power += 1
    tenths = -(-size * 10 // 1024**power)
    if tenths < 100:
        return f"{tenths // 10}.{tenths % 10}{_UNITS[power - 1]}"
    return f"{-(-size // 1024**power)}{_UNITS[power - 1]}"


def headed(parent: str, rows: Sequence[Row], style: Style, *, first: bool) -> None:
    """Write the listing of one of several directories, as `ls -R` does."""
    write(f"{'' if first else chr(10)}{parent or '.'}:")
    for row in rows:
        style.show(row)
