"""The entries and the index of a layer: everything that a listing shows, without content.

Rules:

- Pure values.
- Paths are relative, without empty, `.` and `..` components. The path of the root is empty.
- Extents are positions in the layer's spans. A range without an extent is a hole of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ocifs.layers.spans.span import SpanMap
from ocifs.oci.digest import Digest

LABELS = frozenset({b"security.selinux", b"system.posix_acl_access", b"system.posix_acl_default"})
"""The attributes that `ls -l` requests of each file, until one is reported as unsupported."""


class EntryKind(StrEnum):
    """The type of an entry. A hard link names another entry, possibly of a lower layer."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    CHARACTER = "c"
    BLOCK = "b"
    FIFO = "p"


class Extent(NamedTuple):
    """Bytes [offset, offset+length) of a file, at `position` in the layer."""

    offset: int
    position: int
    length: int


class LayerEntry(NamedTuple):
    """One entry.

    `mode`: permission bits only. `link`: the unchanged target of a symbolic link, or the cleaned
    path of a hard link.

    A named tuple is created four times as fast as a frozen dataclass; 256 are created at a time.
    """

    path: bytes
    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LayerIndex:
    """The entries of a layer in the order of the tar, and the spans with their content.

    `diff_id` and `plain_size`: the digest and size of the uncompressed tar. If the index comes from
    a table of contents, `diff_id` is None, and `plain_size` is the size of all files together.
    `compression`: of the blob, or the name of the lazy format. `prefetch`: as in `Toc`.
    """

    entries: Sequence[LayerEntry]
    diff_id: Digest | None
    plain_size: int
    compression: str
    spans: SpanMap | None = None
    prefetch: int = 0


def clean(path: bytes) -> bytes:
    """Return a path of a tar relative to the root. `..` never leads above the root."""
    simple = path.removeprefix(b"./")
    # Nearly all paths, in a third of the time.
    if not simple.startswith(b".") and b"/." not in simple and b"//" not in simple:
        return simple.strip(b"/")
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
