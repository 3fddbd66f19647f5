"""The on-disk format of EROFS: structures and constants (Linux, Documentation/filesystems/erofs.rst
and fs/erofs/erofs_fs.h).

    0       a head of ocifs' own: EROFS ignores the first 1,024 bytes
    1,024   the superblock, 128 bytes
    1,152   the slot of the data device, 128 bytes
    1,280   the inode of the root; the other inodes, each with its attributes and its data
    ...     blocks of larger directories, between the inodes

- A block has 4 KiB. An inode is identified by its position divided by 32 (nid). The superblock
  stores the nid of the root in 16 bits, so the root is first.
- An inode has 64 bytes (the extended form: 32-bit owners, times in nanoseconds), then extended
  attributes, then inline data or chunk indexes.
- Inline data does not cross the end of a block. Chunk indexes are aligned to 8.
- A directory consists of blocks: entries of 12 bytes, then their names. All names of a directory,
  including `.` and `..`, are sorted as unsigned bytes.
- The content of a file is a list of chunks of 2**n blocks, each at any block of the data device, or
  a hole. A file of at most 1 GiB without holes is one chunk.
- All numbers are little-endian. Times are signed seconds of 64 bits.

Rules:

- Pure.
"""

from __future__ import annotations

import struct

BLOCK = 4096
SLOT = 32
"""The unit of a nid."""
_MAGIC = 0xE0F5E1E2
SUPERBLOCK_AT = 1024
_SUPERBLOCK_SIZE = 128
_DEVICE_SLOT = 128
ROOT_AT = SUPERBLOCK_AT + _SUPERBLOCK_SIZE + _DEVICE_SLOT
MOST_BLOCKS = (1 << 32) - 2
"""Blocks of an image or of the data device. Of a chunk, 0xffffffff means a hole."""
HOLE = 0xFFFFFFFF

# Times are those of modification (compatible). Files have chunks, some of them on another device.
_COMPAT_MTIME = 0x2
_CHUNKED_FILE, _DEVICE_TABLE = 0x4, 0x8

_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_SLOT = struct.Struct("<64sII56x")
# Format, size of the attributes, mode, an unused field, size, location, number, owner, group, time,
# nanoseconds, links. The number is for 32-bit programs; Linux uses the nid.
_INODE = struct.Struct("<HHHHQIIIIqII16x")
INODE_SIZE = _INODE.size
pack_inode = _INODE.pack
# Of the format: the extended form of an inode, with one of three layouts of its data.
PLAIN, INLINE, CHUNKED = 1 | 0 << 1, 1 | 2 << 1, 1 | 4 << 1
CHUNK_INDEXES = 0x20  # in the location of a chunked file, in addition to the size of the chunks
CHUNK_BITS_MOST = 18
"""The largest chunks are 1 GiB: some readers compute with 31 bits."""
INDEX_SIZE = 8
pack_index = struct.Struct("<HHI").pack  # unused bits, device, block
pack_padded_index = struct.Struct("<HHI24x").pack  # the same up to the next inode
DATA_DEVICE = 1

# The types of directory entries.
FILE, DIRECTORY, CHARACTER, BLOCK_DEVICE, FIFO, SYMLINK = 1, 2, 3, 4, 5, 7


def superblock(uuid: bytes, inodes: int, blocks: int, data_blocks: int) -> bytes:
    """The superblock and the slot of the data device, as bytes from SUPERBLOCK_AT to ROOT_AT.

    The data blocks are numbered from `blocks` on. Without any, the image has no data device.
    """
    block = _SUPERBLOCK.pack(
        _MAGIC,
        0,
        _COMPAT_MTIME,
        BLOCK.bit_length() - 1,
        0,
        ROOT_AT // SLOT,
        inodes,
        0,
        0,
        blocks,
        0,
        0,
        uuid,
        b"",
        _CHUNKED_FILE | (_DEVICE_TABLE if data_blocks else 0),
        0,
        1 if data_blocks else 0,
        (SUPERBLOCK_AT + _SUPERBLOCK_SIZE) // _DEVICE_SLOT,
        0,
        0,
        0,
        0,
        0,
    )
    return block + (
        _SLOT.pack(b"data", data_blocks, blocks) if data_blocks else bytes(_DEVICE_SLOT)
    )
