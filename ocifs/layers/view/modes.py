"""The mode of a layer's entry: its type and permissions, as `stat` shows them."""

from __future__ import annotations

import stat

from ocifs.layers.index.entry import EntryKind, LayerEntry

# Linux ignores the permissions of a symbolic link (symlink(7)).
_ANY_LINK = stat.S_IFLNK | 0o777
# An attribute of an Enum takes longer than a comparison.
_FILE, _SYMLINK = EntryKind.FILE, EntryKind.SYMLINK
_TYPES = {
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}


def mode_of(entry: LayerEntry) -> int:
    """Type and permissions."""
    if entry.kind is _FILE:
        return stat.S_IFREG | entry.mode
    return _ANY_LINK if entry.kind is _SYMLINK else _TYPES[entry.kind] | entry.mode
