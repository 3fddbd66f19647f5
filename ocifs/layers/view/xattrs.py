"""The visible extended attributes of a layer's entry: Linux rejects some names (xattr(7)).

An attribute that is listed and cannot be read, or a list that is too long, stops GNU tar and makes
rsync skip the rest of the tree. No Linux file system stores names of other systems, such as
`com.apple.quarantine`, which bsdtar writes on a Mac.

Rules that hold here: pure; attributes are in the order of the archive.
"""

from __future__ import annotations

from ocifs.errors import NoAttribute
from ocifs.layers.index.entry import EntryKind, LayerEntry

# Linux refuses to read these attributes of other types of files.
_USER = b"user."
_HIDDEN: dict[EntryKind, bytes | tuple[bytes, ...]] = {
    EntryKind.FILE: (),
    EntryKind.DIRECTORY: (),
    EntryKind.SYMLINK: (_USER, b"system.posix_acl_"),
}
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")
# The kernel's limits (linux/limits.h) of a name, a value, and a list of names that end with a NUL.
_NAME_MAX, _SIZE_MAX, _LIST_MAX = 255, 65_536, 65_536

Xattrs = tuple[tuple[bytes, bytes], ...]


def visible_xattrs(entry: LayerEntry) -> Xattrs:
    """The attributes of an entry to show. A list that is too long is cut at its end."""
    visible, length = [], 0
    hidden = _HIDDEN.get(entry.kind, _USER)
    for name, value in entry.xattrs:
        if (
            name.startswith(_NAMESPACES)
            and not name.startswith(hidden)
            and name not in _NAMESPACES
            and len(name) <= _NAME_MAX
            and len(value) <= _SIZE_MAX
        ):
            length += len(name) + 1
            if length > _LIST_MAX:
                break
            visible.append((name, value))
    return tuple(visible)


def find_xattr(xattrs: Xattrs, name: bytes) -> bytes:
    """The value of an attribute. Raises NoAttribute."""
    for known, value in xattrs:
        if known == name:
            return value
    raise NoAttribute(f"no such extended attribute: {name!r}")
