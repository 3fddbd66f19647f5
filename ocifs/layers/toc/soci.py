"""zTOC: SOCI's table of contents of a layer, which lies beside the layer in a blob of its own
(soci-snapshotter, ztoc.fbs and zinfo.fbs).

    entries       what a listing shows, with the place of each file's content in the plain tar
    checkpoints   where the gzip can be entered: the first whole byte of the blob, the bits before
    it, 32 KiB of what comes before digests       of the blob's bytes from each checkpoint to the
    next

Rules that hold here: pure; a table is believed whole or refused with Malformed or LimitExceeded;
whoever calls has checked the table's own digest; nothing is as long as the table says before it was
seen to be short enough.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from flatbuffers import number_types
from flatbuffers.table import Table as Buffer

from ocifs.concurrency import check_cancelled
from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry, clean
from ocifs.layers.spans.deflate import WINDOW
from ocifs.layers.spans.span import Span, SpanMap, Window
from ocifs.layers.tar.pax import pax_xattrs
from ocifs.layers.tar.reader import EntryCounter, device, owner
from ocifs.layers.toc.crfs import Toc
from ocifs.layers.toc.crfs_entry import ALGORITHM, KINDS, WIDTH, parse_checksum, parse_time
from ocifs.settings import Limits

_GZIP, _UNCOMPRESSED = 1, 2  # CompressionAlgorithm of ztoc.fbs
_POINT = struct.Struct("<qqB")  # of the blob, of the plain tar, bits; then the window
_HEAD = struct.Struct("<iq")  # checkpoints, span size
# where the first span of a gzip without a name begins, which the first version of zinfo leaves out
_FIRST = 10
_OFTEN = 1 << 10  # entries between two looks for cancellation
_NOT_SHOWN = b"GNU.sparse."


def read_ztoc(data: bytes, size: int, limits: Limits) -> Toc:
    """A table from a zTOC, for a blob of `size` bytes. Raises Malformed and LimitExceeded."""
    try:
        root = _FlatTable(Buffer(data, 0), limits, _ElementBudget(len(data) // 4)).root()
        if root.number(2) != size:
            raise Malformed("the zTOC is of a blob of another size")
        plain = root.number(3)
        if plain > limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has more content than limits.layer_bytes ({limits.layer_bytes})"
            )
        spans = _spans(root.row(5), size, plain, limits)
        return Toc(tuple(_members(root.row(4), plain, limits)), spans, plain)
    except (struct.error, TypeError, IndexError, OverflowError, ValueError):
        raise Malformed("the zTOC is no flatbuffer that makes sense") from None


@dataclass(slots=True)
class _ElementBudget:
    """How many elements of vectors are still to be visited.

    Each takes four bytes, unless several tables share one vector.
    """

    left: int

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Malformed("the zTOC uses parts of itself several times")


@dataclass(frozen=True, slots=True)
class _FlatTable:
    """A table of flatbuffers: its fields by their numbers in the schema."""

    buffer: Buffer
    limits: Limits
    budget: _ElementBudget

    def root(self) -> _FlatTable:
        return self._at(self.buffer.Indirect(0))

    def number(self, field: int, *, signed: bool = True) -> int:
        """A `long`, or with `signed` of False a `uint`; neither is negative."""
        flags = number_types.Int64Flags if signed else number_types.Uint32Flags
        value = int(self.buffer.GetSlot(4 + 2 * field, 0, flags))
        if value < 0:
            raise Malformed("the zTOC has a negative number")
        return value

    def byte(self, field: int, default: int) -> int:
        return int(self.buffer.GetSlot(4 + 2 * field, default, number_types.Int8Flags))

    def row(self, field: int) -> _FlatTable:
        place = self._place(field)
        if not place:
            raise Malformed("the zTOC lacks a part")
        return self._at(self.buffer.Indirect(place))

    def text(self, field: int) -> bytes:
        place = self._place(field)
        return self._string(place) if place else b""

    def rows(self, field: int) -> Iterator[_FlatTable]:
        for place in self._places(field):
            yield self._at(self.buffer.Indirect(place))

    def texts(self, field: int) -> Iterator[bytes]:
        return map(self._string, self._places(field))

    def data(self, field: int) -> bytes:
        """A vector of bytes."""
        offset = self.buffer.Offset(4 + 2 * field)
        if not offset:
            return b""
        start, length = self.buffer.Vector(offset), self.buffer.VectorLen(offset)
        if start + length > len(self.buffer.Bytes):
            raise Malformed("the zTOC ends before a part of it does")
        return bytes(self.buffer.Bytes[start : start + length])

    def _at(self, place: int) -> _FlatTable:
        return _FlatTable(Buffer(self.buffer.Bytes, place), self.limits, self.budget)

    def _place(self, field: int) -> int:
        offset = self.buffer.Offset(4 + 2 * field)
        return self.buffer.Pos + offset if offset else 0

    def _places(self, field: int) -> range:
        offset = self.buffer.Offset(4 + 2 * field)
        if not offset:
            return range(0)
        start, length = self.buffer.Vector(offset), self.buffer.VectorLen(offset)
        if start + 4 * length > len(self.buffer.Bytes):
            raise Malformed("the zTOC ends before a part of it does")
        self.budget.take(length)
        return range(start, start + 4 * length, 4)

    def _string(self, place: int) -> bytes:
        length = self.buffer.Get(number_types.UOffsetTFlags, self.buffer.Indirect(place))
        if length > self.limits.layer_header_bytes:
            raise LimitExceeded(
                f"the zTOC has a text longer than limits.layer_header_bytes ({length})"
            )
        return bytes(self.buffer.String(place))


def _members(toc: _FlatTable, plain: int, limits: Limits) -> Iterator[LayerEntry]:
    counter = EntryCounter(limits)
    for number, row in enumerate(toc.rows(0)):
        if not number % _OFTEN:
            check_cancelled()
        entry = _parse_entry(row, plain)
        counter.count(entry)
        yield entry


def _parse_entry(row: _FlatTable, plain: int) -> LayerEntry:
    kind = KINDS.get(row.text(1).decode("ascii", "replace"))
    if kind is None:
        raise Malformed("the zTOC has an entry of unknown type")
    place, size = row.number(2), row.number(3)
    if kind is not EntryKind.FILE:
        size = 0
    if place + size > plain:
        raise Malformed("a file of the zTOC lies outside the layer")
    link = row.text(4) if kind in (EntryKind.SYMLINK, EntryKind.HARDLINK) else b""
    is_device = kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    return LayerEntry(
        clean(row.text(0)),
        kind,
        row.number(5) & 0o7777,
        owner(row.number(6, signed=False)),
        owner(row.number(7, signed=False)),
        parse_time(row.text(10).decode("ascii", "replace")),
        size,
        clean(link) if kind is EntryKind.HARDLINK else link,
        device(row.number(11), row.number(12)) if is_device else 0,
        _xattrs(row),
        (Extent(0, place, size),) if size else (),
    )


def _xattrs(row: _FlatTable) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes, of all PAX records that are kept under this name."""
    records: dict[str, str] = {}
    weight = 0
    for each in row.rows(13):
        key, value = each.text(0), each.text(1)
        weight += len(key) + len(value)
        if weight > row.limits.layer_header_bytes:
            raise LimitExceeded(
                "an entry of the zTOC has more attributes than limits.layer_header_bytes"
            )
        if key.startswith(_NOT_SHOWN):
            raise Malformed("the zTOC has a sparse file, whose places it does not say")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    return pax_xattrs(records)


def _spans(info: _FlatTable, size: int, plain: int, limits: Limits) -> SpanMap:
    digests = [parse_checksum(text.decode("ascii", "replace")) for text in info.texts(2)]
    algorithm = info.byte(0, _GZIP)
    if algorithm == _GZIP:
        points, compression = list(_points(info.data(3))), "gzip"
    elif algorithm == _UNCOMPRESSED:
        points, compression = list(_plain_points(info.data(3), size, len(digests))), "none"
    else:
        raise Malformed("the zTOC is of a compression that SOCI does not have")
    if len(digests) != len(points):
        raise Malformed("the zTOC has another number of spans than of digests")
    spans = SpanMap(compression, algorithm=ALGORITHM, width=WIDTH, packed=True)
    ends = [*points, _Checkpoint(size, plain, 0, None)]
    for (point, following), checksum in zip(pairwise(ends), digests, strict=True):
        stop = min(following.plain, plain)
        if point.plain >= stop:  # what is behind the tar's end
            continue
        start = point.place - (1 if point.bits else 0)
        if checksum is None or not start < following.place <= size:
            raise Malformed("the zTOC's spans make no sense")
        if max(stop - point.plain, following.place - start) > limits.chunk_bytes:
            raise LimitExceeded(
                f"a span of the zTOC has more than limits.chunk_bytes ({limits.chunk_bytes})"
            )
        spans.add(
            Span(point.plain, stop - point.plain, start, following.place, checksum, point.window)
        )
    return spans


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Where decoding can begin: with the last `bits` bits of the byte before `place`."""

    place: int
    plain: int
    bits: int
    window: Window | None


def _points(data: bytes) -> Iterator[_Checkpoint]:
    """The checkpoints of a gzip.

    The first version leaves out the first, which is always the same.
    """
    count, _ = _HEAD.unpack_from(data)
    each = _POINT.size + WINDOW
    there, rest = divmod(len(data) - _HEAD.size, each)
    if rest or count - there not in (0, 1) or count < 1:
        raise Malformed("the zTOC's checkpoints make no sense")
    if count > there:
        yield _Checkpoint(_FIRST, 0, 0, _window(0, bytes(WINDOW)))
    for number in range(there):
        at = _HEAD.size + number * each
        place, plain, bits = _POINT.unpack_from(data, at)
        if min(place, plain) < 0 or bits > 7:
            raise Malformed("the zTOC's checkpoints make no sense")
        yield _Checkpoint(place, plain, bits, _window(bits, data[at + _POINT.size : at + each]))


def _window(bits: int, before: bytes) -> Window:
    return Window(-bits % 8, zlib.compress(before, 1))


def _plain_points(data: bytes, size: int, count: int) -> Iterator[_Checkpoint]:
    """A plain tar has a point at each multiple of a length, `count` in all."""
    buffer = Buffer(data, 0)
    length = int(Buffer(data, buffer.Indirect(0)).GetSlot(6, 0, number_types.Int64Flags))
    if not 0 < length <= size or -(-size // length) != count:
        raise Malformed("the zTOC's spans make no sense")
    return (_Checkpoint(place, place, 0, None) for place in range(0, size, length))
