"""The entries of a layer in little memory: compressed blocks, about 25 MB for a million entries.

Rules:

- Any thread may read: the event loop lists directories while a worker thread merges the same
  layers.
- Entries are created for each access. The blocks that were used last are cached, since a listing
  accesses neighbours.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeAlias, overload

from cachetools import LRUCache

from ocifs.errors import Malformed
from ocifs.layers import zstd
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry

BLOCK = 256
"""Entries of a block: about 10 KiB."""
_CACHED_BLOCKS = 24

_Json: TypeAlias = str | int | list["_Json"]
_KINDS = {ord(kind.value): kind for kind in EntryKind}
_HEAD = struct.Struct("<III")  # entries, bytes of their paths, bytes of their links
_CODES = "BHIIqqQq"  # kind, mode, owner, group, time, size, device, position of the content
_ROW_BYTES = struct.calcsize("<" + _CODES)
_NO_CONTENT = -1  # in place of a position
_MAX_NUMBER = 1 << 63  # of columns with signed 64-bit numbers
# As named tuples are created, without a call of a Python function for each.
_make_entry: Callable[[Iterable[object]], LayerEntry] = partial(tuple.__new__, LayerEntry)
_make_extent: Callable[[Iterable[int]], Extent] = partial(tuple.__new__, Extent)


class PackedEntries(Sequence[LayerEntry]):
    """A sequence of entries. Equal to any other sequence with equal entries."""

    __slots__ = ("_cached", "_count", "_last", "_lock", "blocks")

    def __init__(self, blocks: Sequence[bytes], count: int) -> None:
        self.blocks = tuple(blocks)
        self._count = count
        self._last: tuple[int, tuple[LayerEntry, ...]] = (-1, ())
        self._cached: LRUCache[int, tuple[LayerEntry, ...]] = LRUCache(_CACHED_BLOCKS)
        # Guards `_cached`. `_last` is replaced atomically.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> LayerEntry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[LayerEntry]: ...
    def __getitem__(self, number: int | slice) -> LayerEntry | Sequence[LayerEntry]:
        if isinstance(number, slice):
            return [self[position] for position in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        block, position = divmod(number, BLOCK)
        # Most accesses are in the block of the previous one, and need no lock.
        last = self._last
        if last[0] != block:
            last = self._last = (block, self._block(block))
        return last[1][position]

    def may_have_xattrs(self, names: Iterable[bytes]) -> bool:
        """Whether an entry may have an extended attribute of one of these names.

        Decodes no entry: 0.1 seconds for a million.
        """
        texts = [json.dumps(_text(name)).encode() for name in names]
        for block in self.blocks:
            rest = _rest_of(zstd.decompress(block))
            if rest and any(text in rest for text in texts):
                return True
        return False

    def __iter__(self) -> Iterator[LayerEntry]:
        # Not through `_block`: a pass over all entries would displace the cached blocks.
        return chain.from_iterable(map(unpack, self.blocks))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            own == others for own, others in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # like a list

    def kinds(self) -> bytes:
        """Return the kinds of all entries as letters, faster than a pass over them."""
        return b"".join(map(_unpack_kinds, self.blocks))

    def _block(self, number: int) -> tuple[LayerEntry, ...]:
        with self._lock:
            cached = self._cached.get(number)
        if cached is not None:
            return cached
        # Outside the lock: two threads may decode the same block, but neither waits.
        entries = unpack(self.blocks[number])
        with self._lock:
            self._cached[number] = entries
        return entries


class EntryPacker:
    """Packs entries one by one."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._open: list[LayerEntry] = []
        self._count = 0

    def add(self, entry: LayerEntry) -> None:
        """Add the next entry."""
        self._open.append(entry)
        self._count += 1
        if len(self._open) == BLOCK:
            self._close()

    def entries(self) -> PackedEntries:
        """Return all entries, after the last one was added."""
        if self._open:
            self._close()
        return PackedEntries(self._blocks, self._count)

    def _close(self) -> None:
        self._blocks.append(zstd.compress(_packed(self._open), 6))
        self._open.clear()


def pack(entries: Iterable[LayerEntry]) -> PackedEntries:
    """Pack entries, unless they are packed."""
    if isinstance(entries, PackedEntries):
        return entries
    packer = EntryPacker()
    for entry in entries:
        packer.add(entry)
    return packer.entries()


def _packed(entries: list[LayerEntry]) -> bytes:
    """Encode a block as columns: numbers, joined names, and JSON for rare attributes."""
    count = len(entries)
    paths, links = (
        b"\0".join([entry.path for entry in entries]),
        b"\0".join([entry.link for entry in entries]),
    )
    # NUL separates the names, so a name with one would shift all names behind it.
    if paths.count(b"\0") != count - 1 or links.count(b"\0") != count - 1:
        raise Malformed("a name in the layer contains a NUL character")
    odd = {number: _rest(entry) for number, entry in enumerate(entries) if _is_odd(entry)}
    rows = []
    for number, entry in enumerate(entries):
        time, size = (0, 0) if number in odd else (entry.mtime_ns, entry.size)
        start = entry.extents[0].position if entry.extents and number not in odd else _NO_CONTENT
        rows.append(
            (ord(entry.kind.value), entry.mode, entry.uid, entry.gid, time, size, entry.rdev, start)
        )
    columns = [
        struct.pack(f"<{count}{code}", *column)
        for code, column in zip(_CODES, zip(*rows, strict=True), strict=True)
    ]
    rest = json.dumps(odd, separators=(",", ":")).encode() if odd else b""
    return b"".join((_HEAD.pack(count, len(paths), len(links)), *columns, paths, links, rest))


def _is_odd(entry: LayerEntry) -> bool:
    """Whether an entry does not fit in the columns, which contain one extent at most."""
    if entry.xattrs or not (
        -_MAX_NUMBER < entry.mtime_ns < _MAX_NUMBER and 0 <= entry.size < _MAX_NUMBER
    ):
        return True
    if not entry.extents:
        return False
    offset, position, length = entry.extents[0]
    return (
        len(entry.extents) > 1
        or offset != 0
        or length != entry.size
        or not 0 <= position < _MAX_NUMBER
    )


def _rest(entry: LayerEntry) -> list[_Json]:
    xattrs: list[_Json] = [[_text(name), _text(value)] for name, value in entry.xattrs]
    return [entry.mtime_ns, entry.size, xattrs, [list(extent) for extent in entry.extents]]


def _rest_of(data: bytes) -> bytes:
    """The rare attributes in a decompressed block."""
    count, paths, links = _HEAD.unpack_from(data)
    return data[_HEAD.size + count * _ROW_BYTES + paths + links :]


def unpack(block: bytes) -> tuple[LayerEntry, ...]:
    """Decode a block that this module encoded. JSON would take five times as long."""
    data = zstd.decompress(block)
    count, paths, links = _HEAD.unpack_from(data)
    offset = _HEAD.size
    columns: list[tuple[int, ...]] = []
    for code in _CODES:
        form = f"<{count}{code}"
        columns.append(struct.unpack_from(form, data, offset))
        offset += struct.calcsize(form)
    kinds, *numbers, rdevs, starts = columns
    contents = zip(starts, numbers[-1], strict=True)
    rows = zip(
        data[offset : offset + paths].split(b"\0"),
        map(_KINDS.__getitem__, kinds),
        *numbers,
        data[offset + paths : offset + paths + links].split(b"\0"),
        rdevs,
        repeat((), count),
        [(_make_extent((0, start, size)),) if start >= 0 else () for start, size in contents],
        strict=True,
    )
    entries = tuple(map(_make_entry, rows))
    rest = data[offset + paths + links :]
    return _with_odd(entries, json.loads(rest)) if rest else entries


def _unpack_kinds(block: bytes) -> bytes:
    """Decode the first column of a block."""
    data = zstd.decompress(block)
    return data[_HEAD.size : _HEAD.size + _HEAD.unpack_from(data)[0]]


def _with_odd(entries: tuple[LayerEntry, ...], odd: dict[str, list[Any]]) -> tuple[LayerEntry, ...]:
    changed = list(entries)
    for number, (time, size, xattrs, extents) in odd.items():
        changed[int(number)] = changed[int(number)]._replace(
            mtime_ns=time,
            size=size,
            xattrs=tuple((_bytes(name), _bytes(value)) for name, value in xattrs),
            extents=tuple(map(Extent._make, extents)),
        )
    return tuple(changed)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
