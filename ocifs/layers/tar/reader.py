"""Lists the entries of an uncompressed tar that arrives as a stream.

A worker thread calls `read_tar` with the pieces of one layer. An entry can be preceded by further
headers: PAX records (`pax.py`), long names of GNU, and global PAX headers. They are interpreted
like in Go's archive/tar, which the unpackers of images use:

- Global PAX headers are ignored.
- Of two PAX headers before one entry the second is used, and the same applies to long names.
- A long name of GNU has precedence over a PAX path.
- A record without a value is ignored.
- A file of type V7 is a directory if its full name ends with a slash.

Rules:

- Blocking, for a worker thread.
- The whole stream is read, also behind the end marker.
- Only Malformed and LimitExceeded are raised.
- The bytes that are read for one entry's headers are bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry, clean
from ocifs.layers.tar.header import BLOCK, TarHeader, parse_header, read_simple_header
from ocifs.layers.tar.magic import describe, image_after_zeros
from ocifs.layers.tar.pax import (
    SCHILY,
    SparseMap,
    encoded,
    nanoseconds,
    number_of,
    old_sparse_map,
    parse_records,
    pax_xattrs,
    sparse_map,
)
from ocifs.layers.tar.stream import TarStream
from ocifs.settings import Limits

_OLD_FILE, _SPARSE, _LONG_NAME, _LONG_LINK, _GLOBAL = b"\0", b"S", b"L", b"K", b"g"
_PAX = frozenset((b"x", b"X"))  # X: written by Solaris
# An entry of any other type is a file, as POSIX requires (pax, "ustar Interchange Format",
# typeflag), and as in GNU tar and bsdtar.
_KINDS = {
    b"5": EntryKind.DIRECTORY,
    # A directory in a dump of GNU tar. Its data, a list of names, is skipped.
    b"D": EntryKind.DIRECTORY,
    b"2": EntryKind.SYMLINK,
    b"1": EntryKind.HARDLINK,
    b"3": EntryKind.CHARACTER,
    b"4": EntryKind.BLOCK,
    b"6": EntryKind.FIFO,
}
_NO_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))  # their size is ignored
# Types that are not entries: volume labels of GNU, continuations of files of other volumes, old
# long names, and ACLs of Solaris.
_NO_ENTRIES = frozenset((b"V", b"M", b"N", b"A"))
_NO_ID = (1 << 32) - 1  # chown(2) does not change the owner
_ENTRY_COST = 64  # the minimum of bytes that an entry counts against limits.layer_index_bytes


@dataclass(slots=True)
class _PendingHeaders:
    """The headers that precede an entry. `present`: whether there are any."""

    records: dict[str, str] = field(default_factory=dict)
    name: bytes = b""
    link: bytes = b""
    present: bool = False


def read_tar(pieces: Iterator[bytes], limits: Limits, add: Callable[[LayerEntry], None]) -> int:
    """Pass each entry to `add`, in order; return the size of the tar.

    Raises Malformed and LimitExceeded.
    """
    stream = TarStream(pieces, limits)
    counter = EntryCounter(limits)
    pending = _PendingHeaders()
    while True:
        # The fast path applies no preceding headers, so an entry behind one takes the long path.
        if not pending.present:
            entry = read_simple_header(stream.peek(BLOCK), stream.tell() + BLOCK)
            if entry is not None:
                stream.skip(BLOCK)
                _skip_content(stream, stream.tell() + entry.size)
                counter.count(entry)
                add(entry)
                continue
            stream.new_entry()
        header = _next_header(stream)
        if header is None:
            break
        if header.kind in _PAX or header.kind in (_LONG_NAME, _LONG_LINK, _GLOBAL):
            _read_pending(stream, header, pending)
            continue
        entry = _entry(stream, header, pending)
        pending = _PendingHeaders()
        if entry is not None:
            counter.count(entry)
            add(entry)
    # Headers without an entry behind them are ignored, as in Go.
    return stream.drain()


def _next_header(stream: TarStream) -> TarHeader | None:
    """Read the next header; None at a block of zeros, or at the end of the stream."""
    start = stream.tell()
    block = stream.read(BLOCK)
    if not block or (len(block) == BLOCK and not block.strip(b"\0")):
        if (
            start == 0
            and not stream.read(BLOCK).strip(b"\0")
            and (image := image_after_zeros(stream.read(BLOCK)))
        ):
            raise Malformed(f"the layer cannot be read: it is {image}, not a tar")
        return None
    try:
        return parse_header(block)
    except Malformed as error:
        reason = f"it is {describe(block)}" if start == 0 else f"a damaged header at byte {start}"
        raise Malformed(f"the layer cannot be read: {reason} ({error})") from None


def _read_pending(stream: TarStream, header: TarHeader, pending: _PendingHeaders) -> None:
    """Read a header that precedes an entry."""
    if header.size < 0:
        raise Malformed("an entry of the tar has a negative size")
    if header.kind == _GLOBAL:
        _skip_content(stream, stream.tell() + header.size)
        return
    pending.present = True
    data = stream.read(_padded(header.size))[: header.size]
    if len(data) < header.size:
        raise Malformed("the layer's tar ends in the middle of a header")
    if header.kind in _PAX:
        pending.records = parse_records(data)
    elif header.kind == _LONG_NAME:
        pending.name = data.partition(b"\0")[0]
    else:
        pending.link = data.partition(b"\0")[0]


def _entry(stream: TarStream, header: TarHeader, pending: _PendingHeaders) -> LayerEntry | None:
    """Skip the content of a header, and return its entry; None if it is not an entry."""
    # An extended attribute may be empty; other empty records are ignored, as in Go.
    records = {
        key: value for key, value in pending.records.items() if value or key.startswith(SCHILY)
    }
    stored = number_of(records, "size")
    if stored is None:
        stored = header.size
    if stored < 0:
        raise Malformed("an entry of the tar has a negative size")
    start = stream.tell()
    size, pieces = stored, None
    if header.kind == _SPARSE:
        pieces, size = old_sparse_map(header.raw, stream.read)
        start = stream.tell()
    elif header.kind not in _NO_DATA:
        pieces = sparse_map(records, stream.read)
        if pieces is not None:
            size = _real_size(records, stored)
            # Some writers record the size of the whole file instead of the stored size.
            if stored == size and header.size:
                stored = header.size
    data_start = stream.tell()
    _skip_content(stream, start + (0 if header.kind in _NO_DATA else stored))
    if header.kind in _NO_ENTRIES:
        return None
    kind, path, link = _named(header, pending, records, sparse=pieces is not None)
    is_file = kind is EntryKind.FILE
    uid, gid = number_of(records, "uid"), number_of(records, "gid")
    return LayerEntry(
        path,
        kind,
        header.mode & 0o7777,
        owner(header.uid if uid is None else uid),
        owner(header.gid if gid is None else gid),
        nanoseconds(records.get("mtime", ""), header.mtime),
        size if is_file else 0,
        link,
        device(*header.device) if kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else 0,
        pax_xattrs(records),
        _extents(pieces, data_start, size) if is_file else (),
    )


def _named(
    header: TarHeader, pending: _PendingHeaders, records: dict[str, str], *, sparse: bool
) -> tuple[EntryKind, bytes, bytes]:
    """Return the kind of an entry, which can depend on its full name, its path and its target."""
    path = pending.name or encoded(records.get("path", "")) or header.name
    # The other path is that of a directory for the pieces.
    if sparse and "GNU.sparse.name" in records:
        path = encoded(records["GNU.sparse.name"])
    link = pending.link or encoded(records.get("linkpath", "")) or header.link
    if b"\0" in path or b"\0" in link:
        raise Malformed("a name in the tar contains a NUL character")
    kind = _KINDS.get(header.kind, EntryKind.FILE)
    if header.kind == _OLD_FILE and path.endswith(b"/"):
        kind = EntryKind.DIRECTORY
    if kind is EntryKind.HARDLINK:
        link = clean(link)
    elif kind is not EntryKind.SYMLINK:
        link = b""
    return kind, clean(path), link


def _real_size(records: dict[str, str], stored: int) -> int:
    """Return the size of a sparse file, including holes. Raises Malformed."""
    for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        size = number_of(records, key)
        if size is not None:
            if size < 0:
                raise Malformed("an entry of the tar has a negative size")
            return size
    return stored


def _extents(pieces: SparseMap | None, start: int, size: int) -> tuple[Extent, ...]:
    """Return the extents of a file. Pieces must be in order and inside the file.

    Pieces without a length are unused fields of older headers.
    """
    if pieces is None:
        return (Extent(0, start, size),) if size else ()
    extents: list[Extent] = []
    end, position = 0, start
    for offset, length in pieces:
        if not length:
            continue
        if length < 0 or offset < end or offset + length > size:
            raise Malformed(
                "the map of a sparse file in the tar is out of order or outside the file"
            )
        extents.append(Extent(offset, position, length))
        end, position = offset + length, position + length
    return tuple(extents)


def _skip_content(stream: TarStream, end: int) -> None:
    """Skip content up to its end in the tar.

    The tar may end there, without the padding of the last block.
    """
    stream.seek(end + -end % BLOCK)
    if stream.tell() < end:
        raise Malformed("the layer's tar is damaged: unexpected end of data")


def _padded(size: int) -> int:
    return size + -size % BLOCK


class EntryCounter:
    """Applies the limits on entries: their number, their size in the index, and sizes of files."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._weight = 0

    def count(self, entry: LayerEntry) -> None:
        """Count an entry. Raises LimitExceeded."""
        self._entries += 1
        # An extent is three numbers of 64 bits.
        self._weight += _ENTRY_COST + len(entry.path) + len(entry.link) + 24 * len(entry.extents)
        if entry.xattrs:
            self._weight += sum(len(name) + len(value) for name, value in entry.xattrs)
        if self._entries > self._limits.layer_members:
            raise LimitExceeded(
                "the layer has more entries than limits.layer_members"
                f" ({self._limits.layer_members})"
            )
        if len(entry.link) > self._limits.layer_link_bytes and entry.kind is EntryKind.SYMLINK:
            raise LimitExceeded(
                "a symbolic link in the layer has a target longer than"
                f" limits.layer_link_bytes ({self._limits.layer_link_bytes})"
            )
        if entry.size > self._limits.layer_file_bytes:
            raise LimitExceeded(
                "a file in the layer is larger than limits.layer_file_bytes"
                f" ({self._limits.layer_file_bytes})"
            )
        if self._weight > self._limits.layer_index_bytes:
            raise LimitExceeded(
                "the layer's names and attributes pass limits.layer_index_bytes"
                f" ({self._limits.layer_index_bytes})"
            )


def owner(number: int) -> int:
    """Return a user or group ID like unpackers in Go: the low 32 bits.

    The value that chown(2) ignores is root.
    """
    low = number & _NO_ID
    return 0 if low == _NO_ID else low


def device(major: int, minor: int) -> int:
    """Return a device number for `st_rdev`, with the number of bits that Linux stores."""
    return os.makedev(major & 0xFFF, minor & 0xFFFFF)
