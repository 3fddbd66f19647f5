"""The entries of a plain tar that arrives as a stream.

A worker thread calls `read_tar` with the pieces of one layer. Before an entry may stand headers
about it: PAX records (`pax.py`), GNU's long names, global PAX headers. Their rules are those of
Go's archive/tar, which all unpackers of images use:

- a global PAX header means nothing
- of two PAX headers before one entry the latter holds, and so it is with two long names
- GNU's long name holds before a PAX path
- a record without a value is as if it were not there
- V7's type of a file means a directory if the full name ends with a slash

Rules that hold here:

- blocking, for a worker thread
- every byte of the stream is read, also after the end marker
- a stream gives entries or raises Malformed or LimitExceeded, nothing else
- what is read of one entry's headers is bounded
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
_PAX = frozenset((b"x", b"X"))  # X: as Solaris wrote it
# An entry of any other type is a file, as POSIX has it (pax, "ustar Interchange Format", typeflag)
# and as GNU tar and bsdtar do.
_KINDS = {
    b"5": EntryKind.DIRECTORY,
    # GNU's dump of a directory: its data is a list of names, which is skipped
    b"D": EntryKind.DIRECTORY,
    b"2": EntryKind.SYMLINK,
    b"1": EntryKind.HARDLINK,
    b"3": EntryKind.CHARACTER,
    b"4": EntryKind.BLOCK,
    b"6": EntryKind.FIFO,
}
_NO_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))  # whatever size they claim
# What is about the archive or another entry: GNU's volume labels, rests of files of other volumes
# and oldest long names; Solaris' ACLs.
_NO_ENTRIES = frozenset((b"V", b"M", b"N", b"A"))
_NO_ID = (1 << 32) - 1  # to chown(2): leave the owner alone
_MEMBER_COST = 64  # bytes that an entry counts at least against limits.layer_index_bytes


@dataclass(slots=True)
class _PendingHeaders:
    """What the headers before an entry say of it."""

    records: dict[str, str] = field(default_factory=dict)
    name: bytes = b""
    link: bytes = b""
    some: bool = False


def read_tar(pieces: Iterator[bytes], limits: Limits, add: Callable[[LayerEntry], None]) -> int:
    """Give each entry to `add`, in order; returns the size of the plain tar.

    Raises Malformed, LimitExceeded.
    """
    stream = TarStream(pieces, limits)
    counter = EntryCounter(limits)
    before = _PendingHeaders()
    while True:
        if not before.some:
            entry = read_simple_header(stream.peek(BLOCK), stream.tell() + BLOCK)
            if entry is not None:
                stream.skip(BLOCK)
                _pass_content(stream, stream.tell() + entry.size)
                counter.count(entry)
                add(entry)
                continue
            stream.new_entry()
        header = _next_header(stream)
        if header is None:
            break
        if header.kind in _PAX or header.kind in (_LONG_NAME, _LONG_LINK, _GLOBAL):
            _take_about(stream, header, before)
            continue
        entry = _entry(stream, header, before)
        before = _PendingHeaders()
        if entry is not None:
            counter.count(entry)
            add(entry)
    return stream.drain()  # headers about an entry that does not come mean nothing, as Go has it


def _next_header(stream: TarStream) -> TarHeader | None:
    """The next header; None at the end of the tar: a block of zeros, or no more bytes."""
    begins = stream.tell()
    block = stream.read(BLOCK)
    if not block or (len(block) == BLOCK and not block.strip(b"\0")):
        if (
            begins == 0
            and not stream.read(BLOCK).strip(b"\0")
            and (what := image_after_zeros(stream.read(BLOCK)))
        ):
            raise Malformed(f"the layer cannot be read: it is {what}, not a tar")
        return None
    try:
        return parse_header(block)
    except Malformed as error:
        where = f"it is {describe(block)}" if begins == 0 else f"a damaged header at byte {begins}"
        raise Malformed(f"the layer cannot be read: {where} ({error})") from None


def _take_about(stream: TarStream, header: TarHeader, before: _PendingHeaders) -> None:
    """Read a header about the next entry."""
    if header.size < 0:
        raise Malformed("an entry of the tar has a negative size")
    if header.kind == _GLOBAL:
        _pass_content(stream, stream.tell() + header.size)
        return
    before.some = True
    data = stream.read(_padded(header.size))[: header.size]
    if len(data) < header.size:
        raise Malformed("the layer's tar ends in the middle of a header")
    if header.kind in _PAX:
        before.records = parse_records(data)
    elif header.kind == _LONG_NAME:
        before.name = data.partition(b"\0")[0]
    else:
        before.link = data.partition(b"\0")[0]


def _entry(stream: TarStream, header: TarHeader, before: _PendingHeaders) -> LayerEntry | None:
    """The entry of a header, whose content is passed over; None for what is not one."""
    records = {
        key: value for key, value in before.records.items() if value or key.startswith(SCHILY)
    }
    stored = number_of(records, "size")
    if stored is None:
        stored = header.size
    if stored < 0:
        raise Malformed("an entry of the tar has a negative size")
    begins = stream.tell()
    size, pieces = stored, None
    if header.kind == _SPARSE:
        pieces, size = old_sparse_map(header.raw, stream.read)
        begins = stream.tell()
    elif header.kind not in _NO_DATA:
        pieces = sparse_map(records, stream.read)
        if pieces is not None:
            size = _real_size(records, stored)
            if (
                stored == size and header.size
            ):  # some writers give the size of the whole in place of what is stored
                stored = header.size
    data = stream.tell()
    _pass_content(stream, begins + (0 if header.kind in _NO_DATA else stored))
    if header.kind in _NO_ENTRIES:
        return None
    kind, path, link = _named(header, before, records, sparse=pieces is not None)
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
        _extents(pieces, data, size) if is_file else (),
    )


def _named(
    header: TarHeader, before: _PendingHeaders, records: dict[str, str], *, sparse: bool
) -> tuple[EntryKind, bytes, bytes]:
    """An entry's kind, which its full name may decide, its path and where it leads."""
    path = before.name or encoded(records.get("path", "")) or header.name
    if sparse and "GNU.sparse.name" in records:  # the path beside it is where the pieces would go
        path = encoded(records["GNU.sparse.name"])
    link = before.link or encoded(records.get("linkpath", "")) or header.link
    if b"\0" in path or b"\0" in link:
        raise Malformed("a name in the tar has a NUL in it")
    kind = _KINDS.get(header.kind, EntryKind.FILE)
    if header.kind == _OLD_FILE and path.endswith(b"/"):
        kind = EntryKind.DIRECTORY
    if kind is EntryKind.HARDLINK:
        link = clean(link)
    elif kind is not EntryKind.SYMLINK:
        link = b""
    return kind, clean(path), link


def _real_size(records: dict[str, str], stored: int) -> int:
    """The size of a sparse file, holes included. Raises Malformed."""
    for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        size = number_of(records, key)
        if size is not None:
            if size < 0:
                raise Malformed("an entry of the tar has a negative size")
            return size
    return stored


def _extents(pieces: SparseMap | None, begins: int, size: int) -> tuple[Extent, ...]:
    """Where the data lies; a sparse file's map must be in order and inside the file.

    GNU's older headers have room for four pieces, and zeros where they have fewer.
    """
    if pieces is None:
        return (Extent(0, begins, size),) if size else ()
    extents: list[Extent] = []
    end, plain = 0, begins
    for offset, length in pieces:
        if not length:
            continue
        if length < 0 or offset < end or offset + length > size:
            raise Malformed("a sparse file's map in the tar is out of order or outside the file")
        extents.append(Extent(offset, plain, length))
        end, plain = offset + length, plain + length
    return tuple(extents)


def _pass_content(stream: TarStream, end: int) -> None:
    """Pass over content that ends at a byte of the tar.

    A tar may end there, without what fills its last block.
    """
    stream.seek(end + -end % BLOCK)
    if stream.tell() < end:
        raise Malformed("the layer's tar is damaged: unexpected end of data")


def _padded(size: int) -> int:
    return size + -size % BLOCK


class EntryCounter:
    """How many entries there are, what they weigh, and that no hole makes a file larger than may
    be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._weight = 0

    def count(self, entry: LayerEntry) -> None:
        self._entries += 1
        self._weight += _MEMBER_COST + len(entry.path) + len(entry.link) + 24 * len(entry.extents)
        if entry.xattrs:
            self._weight += sum(len(name) + len(value) for name, value in entry.xattrs)
        if self._entries > self._limits.layer_members:
            raise LimitExceeded(
                f"the layer has more entries than limits.layer_members ({self._limits.layer_members})"
            )
        if len(entry.link) > self._limits.layer_link_bytes and entry.kind is EntryKind.SYMLINK:
            raise LimitExceeded(
                f"a symbolic link in the layer has a target longer than limits.layer_link_bytes ({self._limits.layer_link_bytes})"
            )
        if entry.size > self._limits.layer_file_bytes:
            raise LimitExceeded(
                f"a file in the layer is larger than limits.layer_file_bytes ({self._limits.layer_file_bytes})"
            )
        if self._weight > self._limits.layer_index_bytes:
            raise LimitExceeded(
                f"the layer's names and attributes pass limits.layer_index_bytes ({self._limits.layer_index_bytes})"
            )


def owner(number: int) -> int:
    """A user's or a group's number as what unpacks with Go makes of it: the last 32 bits, and root
    for what chown(2) takes for nobody.
    """
    kept = number & _NO_ID
    return 0 if kept == _NO_ID else kept


def device(major: int, minor: int) -> int:
    """A device's number, as `st_rdev` has it: so many bits as Linux has for one, as it keeps of
    what unpackers give it.
    """
    return os.makedev(major & 0xFFF, minor & 0xFFFFF)
