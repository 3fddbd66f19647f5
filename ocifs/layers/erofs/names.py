"""The names of a tree's directories, as the image stores them, and the blocks of a directory.

Rules:

- Pure. The worker thread that writes an image calls it.
- Names are sorted as unsigned bytes, `.` and `..` among them: the kernel searches by halving.
- A name of more than 255 bytes is shortened, as in the FUSE view.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from ocifs.errors import Malformed
from ocifs.filenames import MAX_NAME, mangle
from ocifs.layers.erofs.format import BLOCK
from ocifs.layers.merge.tree import DIRECTORY, MergedTree

_pack_entry = struct.Struct("<QHBB").pack
_ENTRY_SIZE = 12
_IMPOSSIBLE = (b"", b".", b"..")
_DOTS = (b".", b"..")
_DOTS_SIZE = sum(_ENTRY_SIZE + len(name) for name in _DOTS)
INLINE_MOST = BLOCK - 32
"""The most inline data: an inode can be moved to any multiple of 32, so that the data fits."""


def listing(tree: MergedTree, number: int) -> tuple[list[bytes], Sequence[int]]:
    """The names of a directory and their codes, in the order of the tree."""
    packed = tree.directories
    first, last = packed.code_ends[number : number + 2]
    if first == last:
        return [], ()
    start, stop = packed.name_ends[number : number + 2]
    joined = bytes(packed.names[start:stop])
    names, codes = joined.split(b"/"), packed.codes[first:last]
    if b"\0" in joined or not set(_IMPOSSIBLE).isdisjoint(names):
        raise Malformed("a directory of the image has a name that no file can have")
    if max(map(len, names)) > MAX_NAME:
        return _shortened(names, codes)
    return names, codes


def _shortened(names: list[bytes], codes: Sequence[int]) -> tuple[list[bytes], list[int]]:
    """The same with short names. A real name is preferred to an equal shortened one."""
    pairs = {
        mangle(name): code for name, code in zip(names, codes, strict=True) if len(name) > MAX_NAME
    }
    short = zip(names, codes, strict=True)
    pairs.update((name, code) for name, code in short if len(name) <= MAX_NAME)
    return list(pairs), list(pairs.values())


def directory_size(names: list[bytes]) -> int:
    """The size of a directory with these names, in any order."""
    size = _DOTS_SIZE + _ENTRY_SIZE * len(names) + sum(map(len, names))
    if size <= BLOCK:
        return size
    blocks = list(_blocks(sorted([*names, *_DOTS])))
    last = blocks[-1]
    return (len(blocks) - 1) * BLOCK + _ENTRY_SIZE * len(last) + sum(map(len, last))


def pack_directory(
    names: list[bytes],
    codes: Sequence[int],
    resolve: Callable[[int], tuple[int, int]],
    own: int,
    parent: int,
) -> bytes:
    """A directory.

    `resolve` returns the nid and the type of a code. `own` and `parent` are numbers of directories.
    Each block except the last one is complete.
    """
    rows = dict(zip(names, codes, strict=True))
    rows[b"."], rows[b".."] = own | DIRECTORY, parent | DIRECTORY
    parts = list[bytes]()
    for block in _blocks(sorted(rows)):
        offset = _ENTRY_SIZE * len(block)
        for name in block:
            nid, kind = resolve(rows[name])
            parts.append(_pack_entry(nid, offset, kind, 0))
            offset += len(name)
        parts += block
        parts.append(bytes(BLOCK - offset))
    # The last block ends with its last name.
    return b"".join(parts[:-1])


def _blocks(names: list[bytes]) -> Iterator[list[bytes]]:
    """The sorted names, divided into blocks."""
    first, free = 0, BLOCK
    for number, name in enumerate(names):
        size = _ENTRY_SIZE + len(name)
        if size > free:
            yield names[first:number]
            first, free = number, BLOCK
        free -= size
    yield names[first:]
