"""Parses zTOCs: SOCI's tables of contents (soci-snapshotter, ztoc.fbs and zinfo.fbs).

    entries       the attributes for a listing, and the position of each file in the tar
    checkpoints   positions at which the gzip stream can be entered: the offset of the first whole
                  byte, the number of bits before it, and 32 KiB of preceding output
    digests       of the blob's bytes between two checkpoints

A zTOC is a FlatBuffer. Importing this module imports FlatBuffers, which is slow: `soci.py` imports
it when the first zTOC is parsed.

Rules:

- Pure, for a worker thread. The caller has verified the digest of the zTOC.
- A zTOC is used as a whole, or rejected with Malformed or LimitExceeded.
- Every length in the zTOC is compared with the size of the data before it is used.
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
from ocifs.layers.toc.crfs_entry import ALGORITHM, KINDS, WIDTH, parse_checksum, parse_time
from ocifs.layers.toc.protocol import Toc
from ocifs.settings import Limits

_GZIP, _UNCOMPRESSED = 1, 2  # CompressionAlgorithm of ztoc.fbs
_POINT = struct.Struct("<qqB")  # offset in the blob, position in the tar, bits; then the window
_HEADER = struct.Struct("<iq")  # number of checkpoints, span size
# The offset of the first span of a gzip without a file name. Version 1 of zinfo omits it.
_FIRST_OFFSET = 10
_CHECK_INTERVAL = 1 << 10  # entries between two checks for cancellation
_SPARSE_PREFIX = b"GNU.sparse."


def read_ztoc(data: bytes, size: int, limits: Limits) -> Toc:
    """Parse the zTOC of a blob of `size` bytes. Raises Malformed and LimitExceeded."""
    try:
        # Each element of a vector takes at least four bytes of the data.
        root = _FlatTable(Buffer(data, 0), limits, _ElementBudget(len(data) // 4)).root()
        if root.number(2) != size:
            raise Malformed("the zTOC belongs to a blob of another size")
        tar_size = root.number(3)
        if tar_size > limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has more content than limits.layer_bytes ({limits.layer_bytes})"
            )
        spans = _spans(root.row(5), size, tar_size, limits)
        return Toc(tuple(_entries(root.row(4), tar_size, limits)), spans, tar_size)
    # FlatBuffers does not check offsets: an invalid one raises any of these errors.
    except (struct.error, TypeError, IndexError, OverflowError, ValueError):
        raise Malformed("the zTOC is not a valid FlatBuffer") from None


@dataclass(slots=True)
class _ElementBudget:
    """The number of vector elements that may still be visited.

    Each takes four bytes. More elements means that several tables share a vector, which would allow
    a small zTOC to cost any amount of time.
    """

    remaining: int

    def take(self, count: int) -> None:
        self.remaining -= count
        if self.remaining < 0:
            raise Malformed("the zTOC has parts that are used more than once")


@dataclass(frozen=True, slots=True)
class _FlatTable:
    """A FlatBuffers table: its fields by their numbers in the schema."""

    buffer: Buffer
    limits: Limits
    budget: _ElementBudget

    def root(self) -> _FlatTable:
        return self._at(self.buffer.Indirect(0))

    def number(self, field: int, *, signed: bool = True) -> int:
        """Return a `long`, or a `uint` if not `signed`. Negative numbers are Malformed."""
        # A vtable begins with two sizes of 16 bits; the 16-bit offsets of the fields follow.
        flags = number_types.Int64Flags if signed else number_types.Uint32Flags
        value = int(self.buffer.GetSlot(4 + 2 * field, 0, flags))
        if value < 0:
            raise Malformed("the zTOC has a negative number")
        return value

    def byte(self, field: int, default: int) -> int:
        return int(self.buffer.GetSlot(4 + 2 * field, default, number_types.Int8Flags))

    def row(self, field: int) -> _FlatTable:
        position = self._position(field)
        if not position:
            raise Malformed("the zTOC has a missing part")
        return self._at(self.buffer.Indirect(position))

    def text(self, field: int) -> bytes:
        position = self._position(field)
        return self._string(position) if position else b""

    def rows(self, field: int) -> Iterator[_FlatTable]:
        for position in self._positions(field):
            yield self._at(self.buffer.Indirect(position))

    def texts(self, field: int) -> Iterator[bytes]:
        return map(self._string, self._positions(field))

    def data(self, field: int) -> bytes:
        """Return a vector of bytes."""
        offset = self.buffer.Offset(4 + 2 * field)
        if not offset:
            return b""
        start, length = self.buffer.Vector(offset), self.buffer.VectorLen(offset)
        if start + length > len(self.buffer.Bytes):
            raise Malformed("the zTOC has a part that extends beyond its end")
        return bytes(self.buffer.Bytes[start : start + length])

    def _at(self, position: int) -> _FlatTable:
        return _FlatTable(Buffer(self.buffer.Bytes, position), self.limits, self.budget)

    def _position(self, field: int) -> int:
        offset = self.buffer.Offset(4 + 2 * field)
        return self.buffer.Pos + offset if offset else 0

    def _positions(self, field: int) -> range:
        offset = self.buffer.Offset(4 + 2 * field)
        if not offset:
            return range(0)
        start, length = self.buffer.Vector(offset), self.buffer.VectorLen(offset)
        if start + 4 * length > len(self.buffer.Bytes):
            raise Malformed("the zTOC has a part that extends beyond its end")
        self.budget.take(length)
        return range(start, start + 4 * length, 4)

    def _string(self, position: int) -> bytes:
        length = self.buffer.Get(number_types.UOffsetTFlags, self.buffer.Indirect(position))
        if length > self.limits.layer_header_bytes:
            raise LimitExceeded(
                f"the zTOC has a text longer than limits.layer_header_bytes ({length})"
            )
        return bytes(self.buffer.String(position))


def _entries(toc: _FlatTable, tar_size: int, limits: Limits) -> Iterator[LayerEntry]:
    counter = EntryCounter(limits)
    for number, row in enumerate(toc.rows(0)):
        if not number % _CHECK_INTERVAL:
            check_cancelled()
        entry = _parse_entry(row, tar_size)
        counter.count(entry)
        yield entry


def _parse_entry(row: _FlatTable, tar_size: int) -> LayerEntry:
    kind = KINDS.get(row.text(1).decode("ascii", "replace"))
    if kind is None:
        raise Malformed("the zTOC has an entry of unknown type")
    position, size = row.number(2), row.number(3)
    # Links and directories may record a size, but have no content.
    if kind is not EntryKind.FILE:
        size = 0
    if position + size > tar_size:
        raise Malformed("the zTOC has a file outside the layer")
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
        (Extent(0, position, size),) if size else (),
    )


def _xattrs(row: _FlatTable) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes among the PAX records in this field."""
    records: dict[str, str] = {}
    total = 0
    for record in row.rows(13):
        key, value = record.text(0), record.text(1)
        total += len(key) + len(value)
        if total > row.limits.layer_header_bytes:
            raise LimitExceeded(
                "an entry of the zTOC has more attributes than limits.layer_header_bytes"
            )
        # The positions of a sparse file's pieces are in its data, which the zTOC does not contain.
        if key.startswith(_SPARSE_PREFIX):
            raise Malformed("the zTOC has a sparse file, without the positions of its data")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    return pax_xattrs(records)


def _spans(info: _FlatTable, size: int, tar_size: int, limits: Limits) -> SpanMap:
    digests = [parse_checksum(text.decode("ascii", "replace")) for text in info.texts(2)]
    algorithm = info.byte(0, _GZIP)
    if algorithm == _GZIP:
        points, compression = list(_checkpoints(info.data(3))), "gzip"
    elif algorithm == _UNCOMPRESSED:
        points, compression = (
            list(_uncompressed_checkpoints(info.data(3), size, len(digests))),
            "none",
        )
    else:
        raise Malformed("the zTOC has an unknown compression")
    if len(digests) != len(points):
        raise Malformed("the zTOC has different numbers of spans and digests")
    spans = SpanMap(compression, algorithm=ALGORITHM, width=WIDTH, packed=True)
    # Each span ends where the next one starts, the last one at the end of the blob.
    ends = [*points, _Checkpoint(size, tar_size, 0, None)]
    for (point, following), checksum in zip(pairwise(ends), digests, strict=True):
        stop = min(following.position, tar_size)
        # Behind the end of the tar.
        if point.position >= stop:
            continue
        # If the checkpoint is within a byte, the span includes that byte.
        start = point.offset - (1 if point.bits else 0)
        if checksum is None or not start < following.offset <= size:
            raise Malformed("the zTOC has invalid spans")
        if max(stop - point.position, following.offset - start) > limits.chunk_bytes:
            raise LimitExceeded(
                f"a span of the zTOC has more than limits.chunk_bytes ({limits.chunk_bytes})"
            )
        spans.add(
            Span(
                point.position,
                stop - point.position,
                start,
                following.offset,
                checksum,
                point.window,
            )
        )
    return spans


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Where decompression can start: `bits` bits before byte `offset` of the blob.

    `position`: the corresponding position in the uncompressed tar.
    """

    offset: int
    position: int
    bits: int
    window: Window | None


def _checkpoints(data: bytes) -> Iterator[_Checkpoint]:
    """Yield the checkpoints of a gzip stream.

    Version 1 omits the first checkpoint, which is the same in all streams.
    """
    count, _ = _HEADER.unpack_from(data)
    record_size = _POINT.size + WINDOW
    stored, rest = divmod(len(data) - _HEADER.size, record_size)
    if rest or count - stored not in (0, 1) or count < 1:
        raise Malformed("the zTOC has invalid checkpoints")
    if count > stored:
        yield _Checkpoint(_FIRST_OFFSET, 0, 0, _window(0, bytes(WINDOW)))
    for number in range(stored):
        start = _HEADER.size + number * record_size
        offset, position, bits = _POINT.unpack_from(data, start)
        if min(offset, position) < 0 or bits > 7:
            raise Malformed("the zTOC has invalid checkpoints")
        yield _Checkpoint(
            offset, position, bits, _window(bits, data[start + _POINT.size : start + record_size])
        )


def _window(bits: int, before: bytes) -> Window:
    return Window(-bits % 8, zlib.compress(before, 1))


def _uncompressed_checkpoints(data: bytes, size: int, count: int) -> Iterator[_Checkpoint]:
    """Yield the `count` checkpoints of an uncompressed tar, at the multiples of a length."""
    buffer = Buffer(data, 0)
    length = int(Buffer(data, buffer.Indirect(0)).GetSlot(6, 0, number_types.Int64Flags))
    if not 0 < length <= size or -(-size // length) != count:
        raise Malformed("the zTOC has invalid spans")
    return (_Checkpoint(offset, offset, 0, None) for offset in range(0, size, length))
