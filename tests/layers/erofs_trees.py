"""Random layers for tests of EROFS images, and the rows that a reader of an image should find."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st

from ocifs.filenames import mangle
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry
from ocifs.layers.merge.tree import MergedEntry, MergedTree
from ocifs.layers.view.links import rebase_target
from ocifs.layers.view.modes import mode_of
from tests.support.erofs import ErofsReader

ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 6, -1 & 0xFFFFFFFF, 2, 4, 1000, 4, 4, 0xFFFFFFFF,
                  0x10, 4, 0xFFFFFFFF, 0x20, 0, 0xFFFFFFFF)  # fmt: skip
"""user::rw-, user:1000:r--, group::r--, mask::r--, other::---"""

# `!` and `-` sort before `.`; bytes that are not UTF-8 sort last.
_COMPONENTS = [
    b"a", b"b", b"c", b"!", b"-x", b".", b"..a", b".a", b"...", b"\xff\xfe", b"\xc3\xa9",
    b"~", b" ", b"n" * 255, b"n" * 254, b"m" * 300, b"m" * 299 + b".tar.gz",
]  # fmt: skip
components = st.sampled_from(_COMPONENTS[:5] + _COMPONENTS[6:])
paths = st.lists(components, min_size=1, max_size=4).map(b"/".join)
targets = st.one_of(
    st.lists(
        st.sampled_from([b"a", b"b", b"..", b".", b"c", b"\xff\xfe"]), min_size=1, max_size=6
    ).map(b"/".join),
    st.builds(lambda path: b"/" + path, paths),
    st.sampled_from([b"/", b"t" * 4095, b"t" * 4065, b"t" * 4064, b"../" * 1365]),
)
xattr_names = st.sampled_from(
    [b"user.a", b"user.bb", b"trusted.c", b"security.selinux", b"user.", b"other.x",
     b"trusted.overlay.opaque", b"user.overlay.redirect", b"user." + b"x" * 250]
)  # fmt: skip
values = st.one_of(
    st.binary(max_size=9),
    st.sampled_from([b"", b"v" * 5000, b"v" * 65_000, b"v" * 65_513, b"v" * 65_514]),
)
xattrs = st.one_of(
    st.just({}),
    st.dictionaries(xattr_names, values, max_size=3),
    st.just({b"system.posix_acl_access": ACL, b"user.z": b"z"}),
    st.just({b"system.posix_acl_default": ACL, b"trusted.z": b""}),
    st.just({b"system.posix_acl_access": ACL[:-1], b"system.posix_acl_default": b""}),
).map(lambda found: tuple(found.items()))
times = st.one_of(
    st.integers(-(10**19), 10**19), st.sampled_from([0, -1, 1, -(10**9), (1 << 32) * 10**9])
)
owners = st.sampled_from([0, 1, 1000, 65_535, 65_536, 70_000, (1 << 32) - 2])
modes = st.sampled_from([0o644, 0o755, 0, 0o7777, 0o4755, 0o2711, 0o1777])
sizes = st.sampled_from([0, 1, 4095, 4096, 4097, 8192, 100_000])
devices = st.builds(
    os.makedev, st.sampled_from([0, 1, 255, 4095]), st.sampled_from([0, 3, 300, 0xFFFFF])
)


@st.composite
def sparse(draw: st.DrawFn) -> tuple[int, tuple[Extent, ...]]:
    """A size and extents with holes."""
    offset, position, extents = 0, 0, []
    for _ in range(draw(st.integers(0, 4))):
        offset += draw(st.sampled_from([0, 1, 511, 4096, 50_000, 1 << 22]))
        length = draw(st.sampled_from([1, 512, 4096, 9000]))
        extents.append(Extent(offset, position, length))
        offset, position = offset + length, position + length
    return offset + draw(st.sampled_from([0, 1, 4096, 1 << 33])), tuple(extents)


@st.composite
def entries(draw: st.DrawFn, earlier: list[bytes]) -> LayerEntry:
    """An entry. A hard link leads to one of the `earlier` paths."""
    kind = draw(st.sampled_from([*EntryKind, EntryKind.FILE, EntryKind.SYMLINK]))
    path = b"" if kind is EntryKind.DIRECTORY and draw(st.booleans()) else draw(paths)
    if kind is EntryKind.HARDLINK:
        if earlier:
            return LayerEntry(path, kind, 0o644, link=draw(st.sampled_from(earlier)))
        kind = EntryKind.FILE
    facts = (draw(modes), draw(owners), draw(owners), draw(times))
    size, link, rdev, extents = 0, b"", 0, tuple[Extent, ...]()
    if kind is EntryKind.FILE:
        if draw(st.booleans()):
            size = draw(sizes)
            extents = (Extent(0, 7, size),) if size else ()
        else:
            size, extents = draw(sparse())
    elif kind is EntryKind.SYMLINK:
        link = draw(targets)
    elif kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
        rdev = draw(devices)
    return LayerEntry(path, kind, *facts, size, link, rdev, draw(xattrs), extents)


@st.composite
def stacks(draw: st.DrawFn) -> list[list[LayerEntry]]:
    """The entries of up to three layers."""
    earlier: list[bytes] = []
    found = []
    for _ in range(draw(st.integers(1, 3))):
        layer = []
        for _ in range(draw(st.integers(0, 12))):
            layer.append(draw(entries(earlier)))
            if layer[-1].kind is not EntryKind.DIRECTORY:
                earlier.append(layer[-1].path)
        found.append(layer)
    return found


@dataclass(frozen=True)
class Row:
    """All that an image should show of one path."""

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    target: bytes = b""
    rdev: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    content: bytes = b""
    same: frozenset[bytes] = frozenset()  # all paths of this inode


def content_of(layer: int, entry: LayerEntry, start: int, stop: int) -> bytes:
    """Bytes of a file: those of an extent depend on the layer and the position, and are not 0."""
    found = bytearray(stop - start)
    for offset, position, length in entry.extents:
        for at in range(max(start, offset), min(stop, offset + length)):
            found[at - start] = 1 + (layer * 31 + position + at - offset) % 251
    return bytes(found)


SHOWN = 1 << 16
"""Bytes at the start and at the end of each file that are compared."""


def both_ends(size: int, read: Callable[[int, int], bytes]) -> bytes:
    if size <= 2 * SHOWN:
        return read(0, size)
    return read(0, SHOWN) + read(size - SHOWN, size)


def expected(tree: MergedTree, owner: tuple[int, int] | None, *, inside: bool) -> dict[bytes, Row]:
    """Each path and its row."""
    found: dict[bytes, tuple[MergedEntry, bytes]] = {}
    todo: list[tuple[tuple[bytes, ...], bytes, MergedEntry]] = [((), b"", tree.root)]
    while todo:
        real, path, item = todo.pop()
        target = item.entry.link if item.entry.kind is EntryKind.SYMLINK else b""
        if target and inside:
            target = rebase_target(tree.root, real[:-1], target)
        found[path] = item, target
        for name, child in (item.children or {}).items():
            shown = name if len(name) <= 255 else mangle(name)
            below = path + b"/" + shown if path else shown
            todo.append(((*real, name), below, child))
    groups: dict[tuple[int, bytes], set[bytes]] = {}
    for path, (item, target) in found.items():
        groups.setdefault((item.code, target), set()).add(path)
    return {
        path: _row(item, target, owner, frozenset(groups[item.code, target]))
        for path, (item, target) in found.items()
    }


def _row(
    item: MergedEntry, target: bytes, owner: tuple[int, int] | None, same: frozenset[bytes]
) -> Row:
    entry, size = item.entry, len(target)
    content = b""
    if entry.kind is EntryKind.FILE:
        size = entry.size
        content = both_ends(size, lambda start, stop: content_of(item.layer, entry, start, stop))
    return Row(
        mode_of(entry),
        owner or (entry.uid, entry.gid),
        entry.mtime_ns,
        size,
        target,
        entry.rdev,
        _stored(entry),
        content,
        same,
    )


def _stored(entry: LayerEntry) -> dict[bytes, bytes]:
    """The attributes that EROFS can store, up to 64 KiB."""
    found, free = {}, (1 << 16) - 4 - 12
    for name, value in entry.xattrs:
        short = name.partition(b".")[2] if not name.startswith(b"system.") else b""
        size = (4 + len(short) + len(value) + 3) // 4 * 4
        if _is_stored(entry.kind, name, value) and size <= free:
            found[name] = value
            free -= size
    return found


def _is_stored(kind: EntryKind, name: bytes, value: bytes) -> bool:
    if name.startswith(b"system.posix_acl_"):
        with_acl = kind is not EntryKind.SYMLINK
        if name.endswith(b"default"):
            with_acl = kind is EntryKind.DIRECTORY
        return with_acl and value == ACL
    if name.startswith(b"user.") and kind not in (EntryKind.FILE, EntryKind.DIRECTORY):
        return False
    prefixes = (b"user.", b"trusted.", b"security.")
    return (
        name.startswith(prefixes)
        and name not in prefixes
        and len(name) <= 255
        and not name.startswith((b"trusted.overlay.", b"user.overlay."))
    )


def rows_of(reader: ErofsReader) -> dict[bytes, Row]:
    """The same from an image."""
    inodes = dict(reader.walk())
    paths: dict[int, set[bytes]] = {}
    for path, inode in inodes.items():
        paths.setdefault(inode.nid, set()).add(path)
    found = {}
    for path, inode in inodes.items():
        kind, same = stat.S_IFMT(inode.mode), frozenset(paths[inode.nid])
        target = content = b""
        if kind == stat.S_IFLNK:
            target = reader.read(inode)
        elif kind == stat.S_IFREG:
            content = both_ends(
                inode.size,
                lambda start, stop, inode=inode: reader.read(inode, start, stop - start),
            )
        if kind != stat.S_IFDIR:
            assert inode.nlink == len(same)
        found[path] = Row(
            inode.mode,
            (inode.uid, inode.gid),
            inode.mtime_ns,
            0 if kind == stat.S_IFDIR else inode.size,
            target,
            inode.rdev,
            inode.xattrs,
            content,
            same,
        )
    return found


def device_of(
    tree: MergedTree, pieces: Callable[[int, int], Iterator[tuple[int, ...]]]
) -> Callable[[int, int], bytes]:
    """The data device of an image: `pieces` is that of its DataMap."""

    def read(offset: int, size: int) -> bytes:
        found = bytearray(size)
        for address, layer, number, start, length in pieces(offset, size):
            entry = tree.layers[layer].entries[number]
            assert start + length <= entry.size
            piece = content_of(layer, entry, start, start + length)
            found[address - offset : address - offset + length] = piece
        return bytes(found)

    return read
