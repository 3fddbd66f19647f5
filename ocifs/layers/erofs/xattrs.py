"""Extended attributes as EROFS stores them: in the inode, after its first 64 bytes.

Each has a number for the beginning of its name (user., trusted., security., or one of the two ACLs
of POSIX), so attributes with other names cannot be stored. The attributes of an inode have at most
64 KiB.

Rules:

- Pure.
- Attributes of overlayfs are left out. A layer that contains them would control an overlay that is
  mounted on top of the image.
- An ACL that Linux would reject is left out. With it, the file could not be opened at all.
"""

from __future__ import annotations

import struct

from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.view.xattrs import visible_xattrs

_HEADER = bytes(12)  # no filter of names, no shared attributes
_ENTRY = struct.Struct("<BBH")
# Of all attributes of an inode. Older kernels store it in 16 bits.
_SIZE_MOST = (1 << 16) - 4
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACLS = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")

_ACL_HEAD, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_ACL_VERSION = 2
# The tags of an ACL (acl(5)) in the order that Linux requires.
_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_PERMISSIONS = 7
_NO_ID = 0xFFFFFFFF


def encode_xattrs(entry: LayerEntry) -> tuple[bytes, int]:
    """The attributes of an inode, and the number of omitted ones."""
    parts, size = [_HEADER], len(_HEADER)
    for name, value in visible_xattrs(entry):
        # The default ACL of a directory is for the files that are created in it.
        is_default = name == b"system.posix_acl_default" and entry.kind is not EntryKind.DIRECTORY
        encoded = None if is_default else _encode(name, value)
        if encoded is not None and size + len(encoded) <= _SIZE_MOST:
            parts.append(encoded)
            size += len(encoded)
    omitted = len(entry.xattrs) - len(parts) + 1
    return (b"".join(parts) if len(parts) > 1 else b""), omitted


def xattr_count(size: int) -> int:
    """The field of an inode for attributes of this size."""
    return 1 + (size - len(_HEADER)) // 4 if size else 0


def _encode(name: bytes, value: bytes) -> bytes | None:
    """One attribute; None if it cannot be stored, or must not be."""
    index, rest = _ACLS.get(name, 0), b""
    if index:
        if not _is_valid_acl(value):
            return None
    elif not name.startswith(_OVERLAY):
        for prefix, number in _PREFIXES:
            if name.startswith(prefix):
                index, rest = number, name[len(prefix) :]
    if not index or len(value) > _SIZE_MOST:
        return None
    entry = _ENTRY.pack(len(rest), index, len(value)) + rest + value
    return entry + bytes(-len(entry) % 4)


def _is_valid_acl(value: bytes) -> bool:
    """Whether Linux accepts an ACL (posix_acl_valid in fs/posix_acl.c)."""
    entries = value[_ACL_HEAD.size :]
    if (
        len(value) < _ACL_HEAD.size
        or _ACL_HEAD.unpack_from(value)[0] != _ACL_VERSION
        or len(entries) % _ACL_ENTRY.size
    ):
        return False
    tags = []
    for tag, permissions, identity in _ACL_ENTRY.iter_unpack(entries):
        if permissions & ~_PERMISSIONS or (tag in (_USER, _GROUP) and identity == _NO_ID):
            return False
        tags.append(tag)
    once = [tag for tag in tags if tag not in (_USER, _GROUP)]
    required = [_OWNER, _GROUP_OWNER, _OTHER]
    with_mask = [_OWNER, _GROUP_OWNER, _MASK, _OTHER]
    return tags == sorted(tags) and (
        once == with_mask or (once == required and len(once) == len(tags))
    )
