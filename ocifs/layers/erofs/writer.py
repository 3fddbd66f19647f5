"""Writes an EROFS image of a merged tree.

The file consists of

    the head       1,024 bytes, which EROFS ignores: a checksum over the rest of the file, and JSON
    the image      the metadata: see format.py
    the data map   for the reader of the data file: see data_map.py

A worker thread calls `write_image`, for seconds if the tree has a million entries.

Rules:

- Pure, except that it writes to the file it was given.
- The same tree and options make the same bytes.
- Long operations check for cancellation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from ocifs.layers.erofs.data_map import DataMap
from ocifs.layers.erofs.format import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    CHUNK_INDEXES,
    CHUNKED,
    DATA_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HOLE,
    INDEX_SIZE,
    INLINE,
    PLAIN,
    SYMLINK,
    pack_index,
    pack_inode,
    pack_padded_index,
    superblock,
)
from ocifs.layers.erofs.head import CHECKSUM_SIZE, ImageHead
from ocifs.layers.erofs.inodes import ImageInodes, Inode
from ocifs.layers.erofs.names import listing, pack_directory
from ocifs.layers.erofs.plan import (
    Chunks,
    ImagePlan,
    Placer,
    Shape,
    chunk_bits,
    ordinary_size,
    plan_image,
)
from ocifs.layers.erofs.xattrs import xattr_count
from ocifs.layers.index.entry import EntryKind
from ocifs.layers.merge.tree import DIRECTORY as DIRECTORY_CODE
from ocifs.layers.merge.tree import MergedTree
from ocifs.layers.view.modes import mode_of
from ocifs.settings import GIB, MIB

_TYPES = {
    EntryKind.FILE: FILE,
    EntryKind.SYMLINK: SYMLINK,
    EntryKind.CHARACTER: CHARACTER,
    EntryKind.BLOCK: BLOCK_DEVICE,
    EntryKind.FIFO: FIFO,
}
_TYPE_OF_LETTER = {ord(kind.value): number for kind, number in _TYPES.items()}
_BILLION = 1_000_000_000
# Linux and the C library encode a device number alike, up to 32 bits.
_DEVICE_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How a tree is shown.

    `owner`: user and group of all inodes; None for those of the layers. `links_inside`: rebase
    symbolic links that would leave the tree.
    """

    owner: tuple[int, int] | None = None
    links_inside: bool = True


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """The result of `write_image`.

    - `sha256`: of the file after its checksum.
    - `size`: of the image, in bytes. The data map follows it in the file.
    - `data`: the map of the data file.
    - `omitted`: the number of extended attributes that are not stored.
    """

    sha256: str
    size: int
    data: DataMap
    omitted: int


def write_image(
    tree: MergedTree, options: ImageOptions, out: BinaryIO, *, limit: int = 4 * GIB
) -> WrittenImage:
    """Write the image of a tree to an empty, seekable file.

    Raises LimitExceeded, Malformed and the errors of writing.
    """
    plan = plan_image(ImageInodes(tree, links_inside=options.links_inside), limit)
    lengths, columns = plan.data.encode()
    head = ImageHead(plan.blocks, lengths, plan.omitted).encode()
    # The checksum is written when it is known.
    out.write(bytes(CHECKSUM_SIZE))
    sink = _Sink(out)
    sink.write(head)
    sink.write(
        superblock(hashlib.sha256(head).digest()[:16], plan.count, plan.blocks, plan.data.blocks)
    )
    _ImageWriter(plan, options, sink).run()
    sink.pad(plan.blocks * BLOCK)
    for column in columns:
        sink.write(column)
    digest = sink.finish()
    out.seek(0)
    out.write(digest.encode() + b"\n")
    return WrittenImage(digest, plan.blocks * BLOCK, plan.data, plan.omitted)


class _Sink:
    """Collects bytes, hashes them, and writes them to the file."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._flushed = CHECKSUM_SIZE

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= MIB:
            self._flush()

    def pad(self, position: int) -> None:
        """Write zeros up to a position in the file."""
        missing = position - self._flushed - len(self._buffer)
        if missing < 0:
            raise AssertionError("the parts of an image overlap")
        self.write(bytes(missing))

    def finish(self) -> str:
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        self._hash.update(self._buffer)
        self._out.write(self._buffer)
        self._flushed += len(self._buffer)
        self._buffer = bytearray()


class _ImageWriter:
    """Writes the inodes of a plan."""

    def __init__(self, plan: ImagePlan, options: ImageOptions, sink: _Sink) -> None:
        self._plan = plan
        self._data = plan.data
        self._owner = options.owner
        self._sink = sink
        self._placer = Placer()
        self._segment = 0  # the next one of the data map
        self._count = 0  # inodes so far

    def run(self) -> None:
        sink, placer = self._sink, self._placer
        for inode in self._plan.inodes:
            entry = inode.entry
            # Nearly all inodes take this path. The last one ended where this one starts.
            size = ordinary_size(entry)
            if size:
                placer.end += size
                sink.write(self._ordinary(inode, entry.size))
                continue
            shape = Shape(inode)
            sink.pad(placer.place(shape.head, shape.tail, shape.blocks))
            sink.write(self._inode(inode, shape))
            if inode.size:
                if shape.blocks:
                    sink.pad(placer.start_block * BLOCK)
                sink.write(inode.target or self._directory(inode.directory))
            sink.pad(placer.end)

    def _ordinary(self, inode: Inode, size: int) -> bytes:
        """The inode of a file that is empty or has one chunk, and no attributes."""
        if not size:
            return self._pack(inode, PLAIN, 0, 0)
        head = self._pack(inode, CHUNKED, size, CHUNK_INDEXES | chunk_bits(size))
        self._segment += 1
        return head + pack_padded_index(0, DATA_DEVICE, self._data.start(self._segment - 1))

    def _inode(self, inode: Inode, shape: Shape) -> bytes:
        """An inode with its attributes and indexes, without inline data."""
        entry, xattrs = inode.entry, shape.xattrs
        chunks = shape.chunks
        if chunks is not None:
            location = CHUNK_INDEXES | chunks.bits
            body = self._pack(inode, CHUNKED, entry.size, location, len(xattrs)) + xattrs
            return body + bytes(-len(body) % INDEX_SIZE) + self._indexes(chunks)
        layout, size = PLAIN, inode.size
        if shape.tail:
            layout, location = INLINE, 0
        elif shape.blocks:
            location = self._placer.start_block
        else:
            location = entry.rdev & _DEVICE_MASK
        return self._pack(inode, layout, size, location, len(xattrs)) + xattrs

    def _pack(self, inode: Inode, layout: int, size: int, location: int, xattrs: int = 0) -> bytes:
        """The first 64 bytes of an inode. `xattrs`: the size of its attributes."""
        entry = inode.entry
        self._count += 1
        uid, gid = self._owner or (entry.uid, entry.gid)
        seconds, nanoseconds = divmod(entry.mtime_ns, _BILLION)
        return pack_inode(
            layout,
            xattrs and xattr_count(xattrs),
            mode_of(entry),
            0,
            size,
            location,
            self._count,
            uid,
            gid,
            seconds,
            nanoseconds,
            inode.links,
        )

    def _indexes(self, chunks: Chunks) -> bytes:
        parts, number = list[bytes](), 0
        for first, last in chunks.runs:
            parts.append(pack_index(0, 0, HOLE) * (first - number))
            start = self._data.start(self._segment)
            self._segment += 1
            for chunk in range(last - first):
                parts.append(pack_index(0, DATA_DEVICE, start + (chunk << chunks.bits)))
            number = last
        parts.append(pack_index(0, 0, HOLE) * (chunks.count - number))
        return b"".join(parts)

    def _directory(self, number: int) -> bytes:
        plan = self._plan
        nids, kinds = plan.directory_nids, plan.inodes.kinds

        def resolve(code: int) -> tuple[int, int]:
            if code & DIRECTORY_CODE:
                return nids[code ^ DIRECTORY_CODE], DIRECTORY
            kind = _TYPE_OF_LETTER[kinds[code >> 32][code & 0xFFFFFFFF]]
            return plan.nid(code, number), kind

        names, codes = listing(plan.inodes.tree, number)
        above = plan.inodes.above[number]
        return pack_directory(names, codes, resolve, number, above)
