"""The entries of a layer in little memory: in blocks, each compressed, so that a million of them
take some 25 MB.

Rules that hold here:

- Any thread may read: the event loop lists directories while a worker thread merges the same
  layers.
- An entry that is asked for is made anew; the blocks looked into last are cached, since a listing
  asks for neighbours.
"""

from __future__ import annotations

import json
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeAlias, overload

from ocifs.errors import Malformed
from ocifs.layers import zstd
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry

BLOCK = 256
"""Entries of a block: some 10 KiB."""
_MADE = 24

_Json: TypeAlias = str | int | list["_Json"]
_KINDS = {ord(kind.value): kind for kind in EntryKind}
_HEAD = struct.Struct("<III")  # entries, bytes of their paths, bytes of their links
_CODES = "BHIIqqQq"  # kind, mode, owner, group, time, size, device, where the content begins
_NOWHERE = -1  # in place of the last
_ROOM = 1 << 63
# As named tuples make themselves, without a call of Python's for each.
_make_entry: Callable[[Iterable[object]], LayerEntry] = partial(tuple.__new__, LayerEntry)
_make_extent: Callable[[Iterable[int]], Extent] = partial(tuple.__new__, Extent)


class PackedEntries(Sequence[LayerEntry]):
    """A sequence of Members. Equal to any other sequence with equal ones."""

    __slots__ = ("_count", "_last", "_lock", "_made", "blocks")

    def __init__(self, blocks: Sequence[bytes], count: int) -> None:
        self.blocks = tuple(blocks)
        self._count = count
        self._last: tuple[int, tuple[LayerEntry, ...]] = (-1, ())
        self._made: OrderedDict[int, tuple[LayerEntry, ...]] = OrderedDict()
        self._lock = threading.Lock()  # of _made; _last is replaced as a whole

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> LayerEntry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[LayerEntry]: ...
    def __getitem__(self, number: int | slice) -> LayerEntry | Sequence[LayerEntry]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        block, place = divmod(number, BLOCK)
        last = self._last
        if last[0] != block:
            last = self._last = (block, self._block(block))
        return last[1][place]

    def __iter__(self) -> Iterator[LayerEntry]:
        return chain.from_iterable(map(unpack, self.blocks))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == its for mine, its in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def _block(self, number: int) -> tuple[LayerEntry, ...]:
        with self._lock:
            made = self._made.get(number)
            if made is not None:
                self._made.move_to_end(number)
                return made
        made = unpack(
            self.blocks[number]
        )  # outside the lock: two threads may do the same work, but neither waits
        with self._lock:
            self._made[number] = made
            while len(self._made) > _MADE:
                self._made.popitem(last=False)
        return made


class EntryPacker:
    """Packs entries as they come."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._open: list[LayerEntry] = []
        self._count = 0

    def add(self, entry: LayerEntry) -> None:
        self._open.append(entry)
        self._count += 1
        if len(self._open) == BLOCK:
            self._close()

    def entries(self) -> PackedEntries:
        """All of them, at the end."""
        if self._open:
            self._close()
        return PackedEntries(self._blocks, self._count)

    def _close(self) -> None:
        self._blocks.append(zstd.compress(_packed(self._open), 6))
        self._open.clear()


def pack(entries: Iterable[LayerEntry]) -> PackedEntries:
    """Entries, packed; those that are packed already as they are."""
    if isinstance(entries, PackedEntries):
        return entries
    packer = EntryPacker()
    for entry in entries:
        packer.add(entry)
    return packer.entries()


def _packed(entries: list[LayerEntry]) -> bytes:
    """Columns: numbers as numbers, names joined, and as JSON what few entries have, by their places
    in the block.
    """
    count = len(entries)
    paths, links = (
        b"\0".join([each.path for each in entries]),
        b"\0".join([each.link for each in entries]),
    )
    if paths.count(b"\0") != count - 1 or links.count(b"\0") != count - 1:
        raise Malformed("a name in the layer has a NUL in it")
    odd = {place: _rest(each) for place, each in enumerate(entries) if _is_odd(each)}
    rows = []
    for place, each in enumerate(entries):
        time, size = (0, 0) if place in odd else (each.mtime_ns, each.size)
        begins = each.extents[0].plain if each.extents and place not in odd else _NOWHERE
        rows.append(
            (ord(each.kind.value), each.mode, each.uid, each.gid, time, size, each.rdev, begins)
        )
    columns = [
        struct.pack(f"<{count}{code}", *column)
        for code, column in zip(_CODES, zip(*rows, strict=True), strict=True)
    ]
    rest = json.dumps(odd, separators=(",", ":")).encode() if odd else b""
    return b"".join((_HEAD.pack(count, len(paths), len(links)), *columns, paths, links, rest))


def _is_odd(entry: LayerEntry) -> bool:
    """Whether the columns have no room for an entry: of its content they have where it begins."""
    if entry.xattrs or not (-_ROOM < entry.mtime_ns < _ROOM and 0 <= entry.size < _ROOM):
        return True
    if not entry.extents:
        return False
    offset, plain, length = entry.extents[0]
    return len(entry.extents) > 1 or offset != 0 or length != entry.size or not 0 <= plain < _ROOM


def _rest(entry: LayerEntry) -> list[_Json]:
    xattrs: list[_Json] = [[_text(name), _text(value)] for name, value in entry.xattrs]
    return [entry.mtime_ns, entry.size, xattrs, [list(extent) for extent in entry.extents]]


def unpack(block: bytes) -> tuple[LayerEntry, ...]:
    """The entries of a block, which was made here. In a fifth of the time that JSON takes."""
    data = zstd.decompress(block)
    count, paths, links = _HEAD.unpack_from(data)
    place = _HEAD.size
    columns: list[tuple[int, ...]] = []
    for code in _CODES:
        form = f"<{count}{code}"
        columns.append(struct.unpack_from(form, data, place))
        place += struct.calcsize(form)
    kinds, *numbers, rdevs, begins = columns
    begun = zip(begins, numbers[-1], strict=True)
    rows = zip(
        data[place : place + paths].split(b"\0"),
        map(_KINDS.__getitem__, kinds),
        *numbers,
        data[place + paths : place + paths + links].split(b"\0"),
        rdevs,
        repeat((), count),
        [(_make_extent((0, begin, size)),) if begin >= 0 else () for begin, size in begun],
        strict=True,
    )
    entries = tuple(map(_make_entry, rows))
    rest = data[place + paths + links :]
    return _with_odd(entries, json.loads(rest)) if rest else entries


def _with_odd(entries: tuple[LayerEntry, ...], odd: dict[str, list[Any]]) -> tuple[LayerEntry, ...]:
    changed = list(entries)
    for place, (time, size, xattrs, extents) in odd.items():
        changed[int(place)] = changed[int(place)]._replace(
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
