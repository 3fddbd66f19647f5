"""A reader of EROFS images, written from the documentation of the format (kernel.org, erofs.rst and
erofs_fs.h), to check images without root.

It shares no code with the writer. It also checks rules that the kernel relies on: the order of
names, the limits of inline data, the link counts of directories, and that no two parts of an image
overlap.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 4096
_HOLE = 0xFFFFFFFF
_PLAIN, _INLINE, _CHUNKS = 0, 2, 4
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_TYPES = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFCHR,
    4: stat.S_IFBLK,
    5: stat.S_IFIFO,
    6: stat.S_IFSOCK,
    7: stat.S_IFLNK,
}


@dataclass(frozen=True)
class ErofsInode:
    """An inode. `rdev` is as in `st_rdev`. `end` is the end of its part of the image."""

    nid: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int
    size: int
    rdev: int
    xattrs: dict[bytes, bytes]
    layout: int
    location: int
    data_at: int  # inline data, or chunk indexes
    end: int


@dataclass
class ErofsReader:
    """An image. `device` reads a range of the data device."""

    image: bytes
    device: Callable[[int, int], bytes] = lambda offset, size: bytes(size)
    used: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (magic,) = struct.unpack_from("<I", self.image, 1024)
        assert magic == 0xE0F5E1E2
        assert self.image[1024 + 12] == 12, "blocks of 4 KiB"
        (root,) = struct.unpack_from("<H", self.image, 1024 + 14)
        (self.inodes,) = struct.unpack_from("<Q", self.image, 1024 + 16)
        self.blocks, self.meta = struct.unpack_from("<II", self.image, 1024 + 36)
        (incompatible,) = struct.unpack_from("<I", self.image, 1024 + 80)
        assert not incompatible & ~(0x4 | 0x8), "features beyond chunks and devices"
        devices, slot = struct.unpack_from("<HH", self.image, 1024 + 86)
        self.data_blocks = self.data_start = 0
        assert devices <= 1
        if devices:
            assert incompatible & 0x8
            self.data_blocks, self.data_start = struct.unpack_from(
                "<II", self.image, slot * 128 + 64
            )
            assert self.data_start >= self.blocks
        assert len(self.image) >= self.blocks * BLOCK
        self.root = root

    def inode(self, nid: int) -> ErofsInode:
        at = self.meta * BLOCK + nid * 32
        (form, xattr_count, mode) = struct.unpack_from("<HHH", self.image, at)
        assert form & 1, "only extended inodes are expected"
        layout = form >> 1 & 7
        size, location, _, uid, gid = struct.unpack_from("<QIIII", self.image, at + 8)
        seconds, nanoseconds, nlink = struct.unpack_from("<qII", self.image, at + 32)
        assert 0 <= nanoseconds < 1_000_000_000
        end = at + 64 + (12 + 4 * (xattr_count - 1) if xattr_count else 0)
        xattrs = dict(self._xattrs(at + 64, end)) if xattr_count else {}
        kind, data_at = stat.S_IFMT(mode), end
        if layout == _INLINE:
            tail = size % BLOCK
            assert tail, "inline data is not empty"
            assert end // BLOCK == (end + tail - 1) // BLOCK, "inline data crosses a block"
            end += tail
        elif layout == _CHUNKS:
            assert location & 0x20 and not location & ~0x3F
            chunk = BLOCK << (location & 0x1F)
            data_at = -(-end // 8) * 8
            end = data_at + 8 * -(-size // chunk)
        else:
            assert layout == _PLAIN
        assert end <= self.blocks * BLOCK
        device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        return ErofsInode(
            nid,
            mode,
            uid,
            gid,
            seconds * 1_000_000_000 + nanoseconds,
            nlink,
            size,
            location if device else 0,
            xattrs,
            layout,
            location,
            data_at,
            end,
        )

    def _xattrs(self, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        shared = self.image[at + 4]
        assert not shared
        at += 12
        while at < end:
            length, index, size = struct.unpack_from("<BBH", self.image, at)
            name = self.image[at + 4 : at + 4 + length]
            yield _PREFIXES[index] + name, self.image[at + 4 + length :][:size]
            at += -(-(4 + length + size) // 4) * 4
        assert at == end

    def read(self, inode: ErofsInode, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file, a directory or a symbolic link."""
        length = inode.size - offset if length is None else min(length, inode.size - offset)
        content = bytearray()
        while len(content) < length:
            at = offset + len(content)
            source, start, size = self._map(inode, at)
            size = min(size, length - len(content))
            if source == "hole":
                content += bytes(size)
            elif source == "device":
                assert start + size <= self.data_blocks * BLOCK
                piece = self.device(start, size)
                assert len(piece) == size
                content += piece
            else:
                content += self.image[start : start + size]
        return bytes(content)

    def _map(self, inode: ErofsInode, at: int) -> tuple[str, int, int]:
        """Where a byte of a file is, and how many follow it there."""
        if inode.layout == _CHUNKS:
            chunk = BLOCK << (inode.location & 0x1F)
            number, within = divmod(at, chunk)
            _, device, block = struct.unpack_from("<HHI", self.image, inode.data_at + 8 * number)
            if block == _HOLE:
                return "hole", 0, chunk - within
            assert device == 1
            return "device", block * BLOCK + within, chunk - within
        if inode.layout == _INLINE and at >= inode.size // BLOCK * BLOCK:
            return "image", inode.data_at + at % BLOCK, inode.size - at
        start = inode.location * BLOCK + at
        if self.data_blocks and start >= self.data_start * BLOCK:
            return "device", start - self.data_start * BLOCK, inode.size - at
        assert start + min(BLOCK, inode.size - at) <= self.blocks * BLOCK
        return "image", start, inode.size - at

    def directory(self, inode: ErofsInode) -> dict[bytes, tuple[int, int]]:
        """The names of a directory, each with its nid and type, in the order of the image."""
        assert stat.S_ISDIR(inode.mode)
        data, found = self.read(inode), dict[bytes, tuple[int, int]]()
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            (first,) = struct.unpack_from("<H", block, 8)
            assert first and not first % 12
            rows = [struct.unpack_from("<QHBB", block, at) for at in range(0, first, 12)]
            ends = [row[1] for row in rows[1:]] + [len(block)]
            for (nid, name_at, kind, _), end in zip(rows, ends, strict=True):
                name = block[name_at:end]
                if end == len(block):
                    name = name.rstrip(b"\0")
                assert 0 < len(name) <= 255 and b"\0" not in name and b"/" not in name
                assert name not in found
                found[name] = (nid, _TYPES[kind])
        assert list(found) == sorted(found), "the kernel searches by halving"
        return found

    def walk(self) -> Iterator[tuple[bytes, ErofsInode]]:
        """Every path and its inode, from the root down. Also checks the directories."""
        todo, seen = [(b"", self.root, self.root)], set[int]()
        while todo:
            path, nid, above = todo.pop()
            inode = self.inode(nid)
            if nid not in seen:
                seen.add(nid)
                self._use(inode)
            yield path, inode
            if not stat.S_ISDIR(inode.mode):
                continue
            names = self.directory(inode)
            assert names.pop(b".") == (nid, stat.S_IFDIR)
            assert names.pop(b"..") == (above, stat.S_IFDIR)
            below = 0
            for name, (child, kind) in names.items():
                assert stat.S_IFMT(self.inode(child).mode) == kind
                below += kind == stat.S_IFDIR
                todo.append((path + b"/" + name if path else name, child, nid))
            assert inode.nlink == 2 + below
        assert len(seen) == self.inodes
        # No two inodes or blocks of directories overlap.
        ends = 0
        for start, end in sorted(self.used.items()):
            assert start >= ends
            ends = end

    def _use(self, inode: ErofsInode) -> None:
        start = self.meta * BLOCK + inode.nid * 32
        assert start not in self.used
        self.used[start] = inode.end
        inside = not self.data_blocks or inode.location < self.data_start
        if inode.layout == _PLAIN and inode.size and inside:
            start = inode.location * BLOCK
            assert start not in self.used
            self.used[start] = start + inode.size
