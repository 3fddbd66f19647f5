"""The layout of an image: the place of each inode, and of the content of each file.

`plan_image` visits the names of all directories (`inodes.py`), then the entries of all layers, and
places each inode after the last one. The writer visits them again, in the same order.

Rules:

- Pure. The worker thread that writes an image calls it.
- The same tree and options have the same plan.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocifs.errors import LimitExceeded
from ocifs.layers.erofs.data_map import TOO_MUCH_DATA, DataMap
from ocifs.layers.erofs.format import (
    BLOCK,
    CHUNK_BITS_MOST,
    INDEX_SIZE,
    INODE_SIZE,
    MOST_BLOCKS,
    ROOT_AT,
    SLOT,
)
from ocifs.layers.erofs.inodes import NONE, ImageInodes, Inode
from ocifs.layers.erofs.names import INLINE_MOST
from ocifs.layers.erofs.xattrs import encode_xattrs
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.merge.tree import code_of

# For each extent of a sparse file, so that a hole of terabytes takes few indexes.
_CHUNKS_OF_EXTENT = 16
_FILE = EntryKind.FILE


class Placer:
    """Places inodes one after the other. `end` is the position after the last one."""

    __slots__ = ("end", "start_block")

    def __init__(self) -> None:
        self.end = ROOT_AT
        self.start_block = 0

    def place(self, head: int, tail: int, blocks: int) -> int:
        """The position of an inode of `head` bytes with a `tail` of inline data, or with `blocks`.

        Sets `start_block` to the first of the blocks.
        """
        position = self.end
        start = position + head
        if tail and start // BLOCK != (start + tail - 1) // BLOCK:
            # The data starts with the next block, or up to 31 bytes later.
            position = _round(_round(start, BLOCK) - head, SLOT)
            start = position + head
        self.end = _round(start + tail, SLOT)
        if blocks:
            self.start_block = -(-self.end // BLOCK)
            self.end = (self.start_block + blocks) * BLOCK
        return position


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of a file: 2**bits blocks each, `count` in all. Those in `runs` have content."""

    bits: int
    count: int
    runs: Sequence[tuple[int, int]]


class Shape:
    """The sizes of an inode: attributes, inline data, blocks, and the chunks of its content."""

    __slots__ = ("blocks", "chunks", "head", "omitted", "tail", "xattrs")

    def __init__(self, inode: Inode) -> None:
        entry = inode.entry
        self.xattrs, self.omitted = encode_xattrs(entry) if entry.xattrs else (b"", 0)
        self.head = INODE_SIZE + len(self.xattrs)
        self.tail = self.blocks = 0
        self.chunks: Chunks | None = None
        if inode.size > INLINE_MOST:
            self.blocks = -(-inode.size // BLOCK)
        else:
            self.tail = inode.size
        if entry.kind is _FILE and entry.size:
            self.chunks = chunks_of(entry)
            self.head = _round(self.head, INDEX_SIZE) + INDEX_SIZE * self.chunks.count


@dataclass(slots=True)
class ImagePlan:
    """The places of everything in an image.

    `nids` has those of the entries of each layer, `directory_nids` those of the directories, and
    `split_nids` those of symbolic links with several targets, by their codes and directories.
    `omitted`: the number of attributes that are not stored.
    """

    inodes: ImageInodes
    nids: list[array[int]]
    directory_nids: array[int]
    split_nids: dict[tuple[int, int], int] = field(default_factory=dict)
    data: DataMap = field(default_factory=DataMap)
    count: int = 0
    end: int = 0
    omitted: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.end // BLOCK)

    def nid(self, code: int, directory: int) -> int:
        """The nid of an entry that is not a directory, by a name in this directory."""
        layer, position = code >> 32, code & 0xFFFFFFFF
        return self.nids[layer][position] or self.split_nids[code, directory]


def plan_image(inodes: ImageInodes, limit: int) -> ImagePlan:
    """Plan an image of at most `limit` bytes. Raises LimitExceeded."""
    tree = inodes.tree
    nids = [array("I", bytes(4 * len(layer.entries))) for layer in tree.layers]
    plan = ImagePlan(inodes, nids, array("I", bytes(4 * len(tree.directories.layers))))
    placer, data, layers = Placer(), plan.data, 0
    for inode in inodes:
        if placer.end > limit:
            break
        plan.count += 1
        entry = inode.entry
        # The root comes first, whichever layer describes it.
        while layers <= inode.layer and inode.directory == NONE:
            data.add_layer()
            layers += 1
        # Nearly all inodes take this path.
        size = ordinary_size(entry)
        if size:
            nids[inode.layer][inode.position] = placer.end // SLOT
            placer.end += size
            if entry.size:
                data.add(inode.position, 0, entry.size)
            continue
        _place(plan, placer, inode)
    plan.end = placer.end
    if plan.blocks * BLOCK > limit:
        raise LimitExceeded(f"the EROFS image has more than limits.erofs_bytes ({limit}) bytes")
    if plan.blocks + data.blocks > MOST_BLOCKS:
        raise LimitExceeded(TOO_MUCH_DATA)
    return plan


def _place(plan: ImagePlan, placer: Placer, inode: Inode) -> None:
    """Place an inode of any kind."""
    shape, entry = Shape(inode), inode.entry
    plan.omitted += shape.omitted
    nid = placer.place(shape.head, shape.tail, shape.blocks) // SLOT
    if inode.directory != NONE:
        plan.directory_nids[inode.directory] = nid
        return
    if inode.directories:
        code = code_of(inode.layer, inode.position)
        plan.split_nids.update(((code, number), nid) for number in inode.directories)
    else:
        plan.nids[inode.layer][inode.position] = nid
    if shape.chunks is not None:
        unit = BLOCK << shape.chunks.bits
        for first, last in shape.chunks.runs:
            length = min(last * unit, entry.size) - first * unit
            plan.data.add(inode.position, first * unit, length)


def ordinary_size(entry: LayerEntry) -> int:
    """The size of the inode of an ordinary file: empty, or with one chunk; 0 for other entries."""
    if entry.kind is not _FILE or entry.xattrs:
        return 0
    size, extents = entry.size, entry.extents
    if not size:
        return INODE_SIZE
    is_dense = len(extents) == 1 and extents[0].length == size <= BLOCK << CHUNK_BITS_MOST
    return INODE_SIZE + SLOT if is_dense else 0


def chunk_bits(size: int) -> int:
    """The chunk size, as in `Chunks`, for content without holes."""
    return min((-(-size // BLOCK) - 1).bit_length(), CHUNK_BITS_MOST)


def chunks_of(entry: LayerEntry) -> Chunks:
    """The chunks of a file."""
    size, extents = entry.size, entry.extents
    if len(extents) == 1 and extents[0].length == size:
        bits = chunk_bits(size)
        count = -(-size // (BLOCK << bits))
        return Chunks(bits, count, ((0, count),))
    bits = 0
    while -(-size // (BLOCK << bits)) > _CHUNKS_OF_EXTENT * (len(extents) + 1):
        if bits == CHUNK_BITS_MOST:
            break
        bits += 1
    unit, runs = BLOCK << bits, list[tuple[int, int]]()
    for offset, _, length in sorted(extents):
        stop = min(offset + length, size)
        if offset >= stop:
            continue
        first, last = offset // unit, -(-stop // unit)
        if runs and first <= runs[-1][1]:
            runs[-1] = runs[-1][0], max(last, runs[-1][1])
        else:
            runs.append((first, last))
    return Chunks(bits, -(-size // unit), runs)


def _round(number: int, unit: int) -> int:
    return -(-number // unit) * unit
