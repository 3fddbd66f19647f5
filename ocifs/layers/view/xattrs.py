"""The visible extended attributes of a layer's entry: Linux rejects some names (xattr(7)).

An attribute that is listed and cannot be read, or a list that is too long, stops GNU tar and makes
rsync skip the rest of the tree. No Linux file system stores names of other systems, such as
`com.apple.quarantine`, which bsdtar writes on a Mac.

Rules that hold here: pure; attributes are in the order of the archive.
"""

from __future__ import annotations

from ocifs.errors import NoAttribute

_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")
# The kernel's limits (linux/limits.h) of a name, a value, and a list of names that end with a NUL.
_NAME_MAX, _SIZE_MAX, _LIST_MAX = 255, 65_536, 65_536

Xattrs = tuple[tuple[bytes, bytes], ...]


def visible_xattrs(xattrs: Xattrs) -> Xattrs:
    """The attributes to show. A list that is too long is cut at its end."""
    visible, length = [], 0
    for name, value in xattrs:
        if (
            name.startswith(_NAMESPACES)
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
