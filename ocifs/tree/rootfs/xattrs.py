"""Which extended attributes of a layer's entry are shown: those that a file on Linux can have
(xattr(7)).

One that is listed and cannot be read, or a list that is too long, ends GNU tar, and rsync leaves
the rest of the tree. Names of other systems (`com.apple.quarantine`, which bsdtar writes on a Mac)
no file system takes when they are copied.

Rules that hold here: pure; what is shown is what the tar has, in its order.
"""

from __future__ import annotations

_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")
# The kernel's bounds (linux/limits.h): of a name, of a value, and of a list, in which each name
# ends with a NUL.
_NAME_MAX, _SIZE_MAX, _LIST_MAX = 255, 65_536, 65_536

Xattrs = tuple[tuple[bytes, bytes], ...]


def visible_xattrs(xattrs: Xattrs) -> Xattrs:
    """Those that are shown; of a list that is too long the first."""
    kept, length = [], 0
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
            kept.append((name, value))
    return tuple(kept)
