"""The entries of a plain tar that arrives as a stream, with the standard library's tarfile doing the formats.

Taken from tarfile: ustar, PAX, GNU long names and sparse files, base-256 numbers. Done here: what it loses (nanoseconds, binary extended
attributes, where the data lies), what it does too kindly (a damaged header in the middle is the end to it; global PAX headers apply,
though image-spec and Go's readers ignore them), what it takes for something else (`_Info`), and bounds.

Rules that hold here: blocking, for a worker thread; every byte of the stream is read, also after the end marker; a stream gives entries
or raises Malformed or LimitExceeded, nothing else.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, NoReturn, cast
from urllib.parse import unquote_to_bytes

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.forward import PlainStream
from ocifs.layers.header import read_plain
from ocifs.layers.member import Extent, Kind, Member, clean
from ocifs.settings import Limits

# An entry of any other type is a file, as POSIX has it (pax, "ustar Interchange Format", typeflag) and as GNU tar and bsdtar do.
_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,  # GNU's dump of a directory: its data is a list of names, which is skipped
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}
# What is about the archive or another entry: GNU's volume labels, rests of files of other volumes and oldest long names; Solaris' ACLs.
_NO_ENTRIES = frozenset((b"V", b"M", b"N", b"A"))
_SCHILY, _LIBARCHIVE = "SCHILY.xattr.", "LIBARCHIVE.xattr."
_FIRST, _END = -62_135_596_800, 253_402_300_800  # seconds: the years 1 to 9999, as tables of contents have them
_NO_ID = (1 << 32) - 1  # to chown(2): leave the owner alone
_PREFIX, _END_OF_PREFIX, _END_OF_STARS = 345, 500, 476  # in a header
_CLOCK = re.compile(rb"[ \0]*[0-7]*([ \0].*)?|[\x80\xff].*", re.DOTALL)  # a time as a field of a header, or nothing
_MEMBER_COST = 64  # bytes that an entry counts at least against limits.layer_index_bytes


class _Info(tarfile.TarInfo):
    """A header, read strictly: one that is damaged is an error wherever it stands.

    Unlike tarfile, and like Go's archive/tar: a global PAX header means nothing; of two PAX headers before one entry the latter holds; a
    record without a value is as if it were not there; what GNU and V7 tars have in the place of ustar's prefix is none.
    """

    _first = 0  # where the data begins, a sparse file's map included
    _told = False  # by PAX records

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Info:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            where = "it is no tar" if tarfile_.offset == 0 else f"a damaged header at byte {tarfile_.offset}"
            raise Malformed(f"the layer cannot be read: {where} ({error})") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Info:
        info = super().frombuf(buf, encoding, errors)
        end = _end_of_prefix(buf)
        if end < _END_OF_PREFIX and info.type not in tarfile.GNU_TYPES:
            parts = [bytes(part).split(b"\0")[0].decode(encoding, errors) for part in (buf[_PREFIX:end], buf[:100])]
            info.name = "/".join(part for part in parts if part)
        return info

    def _proc_member(self, tarfile_: tarfile.TarFile) -> _Info:
        stream = cast(PlainStream, tarfile_.fileobj)
        if self.type == tarfile.XGLTYPE:
            stream.seek(self.offset + tarfile.BLOCKSIZE + _padded(self.size))
            return self._following(tarfile_)
        self._first = stream.tell()
        info = cast(_Info, super()._proc_member(tarfile_))  # type: ignore[misc]
        said = info.pax_headers
        if info.sparse is not None and said.get(
            "size"
        ):  # of what is stored, which tarfile takes for the size of the file
            tarfile_.offset = info._first + _padded(int(said["size"]))
            info.size = int(said.get("GNU.sparse.realsize") or said.get("GNU.sparse.size") or info.size)
        return info

    def _following(self, tarfile_: tarfile.TarFile) -> _Info:
        try:
            return self.fromtarfile(tarfile_)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.EOFHeaderError("end of file header") from None  # type: ignore[attr-defined]

    def _apply_pax_info(self, pax_headers: dict[str, str], encoding: str, errors: str) -> None:
        if not self._told:  # the header that stands nearest comes first
            self._told = bool(pax_headers)
            said = {key: value for key, value in pax_headers.items() if value or key.startswith(_SCHILY)}
            if "GNU.sparse.name" in said:  # the path beside it is where the pieces would go
                said.pop("path", None)
            super()._apply_pax_info(said, encoding, errors)  # type: ignore[misc]


def _end_of_prefix(header: bytes | bytearray) -> int:
    """Where the field that goes before a name ends: of POSIX' headers, and of star's, which have two times behind it.

    GNU's have times in its place, V7's nothing. Go's library before 1.8 wrote prefixes into GNU's, and such layers are still about.
    """
    if header[257:263] == b"ustar\0":
        return _END_OF_STARS if header[508:512] == b"tar\0" else _END_OF_PREFIX
    if header[257:265] == b"ustar  \0" and not all(
        _CLOCK.fullmatch(header[at : at + 12]) for at in (_PREFIX, _PREFIX + 12)
    ):
        return _END_OF_PREFIX
    return _PREFIX


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


class _Tar(tarfile.TarFile):
    """An archive whose headers are read so."""

    tarinfo = _Info
    members: list[tarfile.TarInfo]
    firstmember: tarfile.TarInfo | None


def read_tar(pieces: Iterator[bytes], limits: Limits, add: Callable[[Member], None]) -> int:
    """Give each entry to `add`, in order; returns the size of the plain tar. Raises Malformed, LimitExceeded."""
    stream = PlainStream(pieces, limits)
    counter = Counter(limits)
    try:
        tar = _open(stream)
        end = 0
        while tar is not None:
            member = _next_plain(tar, stream)
            if member is None:
                info = _next(tar, stream, end)
                if info is None:
                    break
                member = _member(info)
                tar.members.clear()
                stream.new_entry()
            if member is not None:
                counter.count(member)
                add(member)
                end = _end(member) or end
    except (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError, ArithmeticError) as error:
        raise Malformed(f"the layer's tar is damaged: {error}") from None
    return stream.drain()


def _open(stream: PlainStream) -> _Tar | None:
    """The archive, or None for one of no bytes at all: an empty layer."""
    try:
        return _Tar(fileobj=cast(IO[bytes], stream), mode="r", encoding="utf-8", errors="surrogateescape")
    except tarfile.ReadError:
        if stream.tell() == 0:
            return None
        raise


def _end(member: Member) -> int:
    """Where its content ends in the tar, if it has any."""
    return member.extents[-1].plain + member.extents[-1].length if member.extents else 0


def _next_plain(tar: _Tar, stream: PlainStream) -> Member | None:
    """The next entry, where nothing about it is special and tarfile does not hold it already; else None, and nothing is taken."""
    if tar.firstmember is not None or not tar.offset:
        return None
    begins = stream.seek(tar.offset)
    member = read_plain(stream.peek(tarfile.BLOCKSIZE), begins + tarfile.BLOCKSIZE)
    if member is not None:
        stream.skip(tarfile.BLOCKSIZE)
        tar.offset = begins + tarfile.BLOCKSIZE + _padded(member.size)
    return member


def _next(tar: _Tar, stream: PlainStream, end: int) -> tarfile.TarInfo | None:
    """The next entry. `end`: where the last content ended: a tar may end there, without what fills its last block."""
    try:
        return tar.next()
    except tarfile.ReadError:
        if end <= stream.tell() < _padded(end):
            return None
        raise


class Counter:
    """How many entries there are, what they weigh, and that no hole makes a file larger than may be."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._weight = 0

    def count(self, member: Member) -> None:
        self._entries += 1
        self._weight += _MEMBER_COST + len(member.path) + len(member.link) + 24 * len(member.extents)
        if member.xattrs:
            self._weight += sum(len(name) + len(value) for name, value in member.xattrs)
        if self._entries > self._limits.layer_members:
            raise LimitExceeded(f"the layer has more entries than limits.layer_members ({self._limits.layer_members})")
        if member.size > self._limits.layer_file_bytes:
            raise LimitExceeded(
                f"a file in the layer is larger than limits.layer_file_bytes ({self._limits.layer_file_bytes})"
            )
        if self._weight > self._limits.layer_index_bytes:
            raise LimitExceeded(
                f"the layer's names and attributes pass limits.layer_index_bytes ({self._limits.layer_index_bytes})"
            )


def _member(info: tarfile.TarInfo) -> Member | None:
    """An entry as a member; None for what is none."""
    if info.type in _NO_ENTRIES:
        return None
    kind = _KINDS.get(info.type, Kind.FILE)
    if info.size < 0:
        raise Malformed("an entry of the tar has a negative size")
    path, link = _encoded(info.name), _encoded(info.linkname)
    if b"\0" in path or b"\0" in link:
        raise Malformed("a name in the tar has a NUL in it")
    is_file, is_device = kind is Kind.FILE, kind in (Kind.CHARACTER, Kind.BLOCK)
    if kind is Kind.HARDLINK:
        link = clean(link)
    return Member(
        clean(path),
        kind,
        info.mode & 0o7777,
        owner(info.uid),
        owner(info.gid),
        _time(info),
        info.size if is_file else 0,
        link if kind in (Kind.SYMLINK, Kind.HARDLINK) else b"",
        device(info.devmajor, info.devminor) if is_device else 0,
        pax_xattrs(info.pax_headers),
        _extents(info) if is_file else (),
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def owner(number: int) -> int:
    """A user's or a group's number as what unpacks with Go makes of it: the last 32 bits, and root for what chown(2) takes for nobody."""
    kept = number & _NO_ID
    return 0 if kept == _NO_ID else kept


def device(major: int, minor: int) -> int:
    """A device's number, as `st_rdev` has it: so many bits as Linux has for one, as it keeps of what unpackers give it."""
    return os.makedev(major & 0xFFF, minor & 0xFFFFF)


def _time(info: tarfile.TarInfo) -> int:
    """Nanoseconds since the epoch; what cannot be a time is the epoch."""
    try:
        seconds = Decimal(info.pax_headers.get("mtime", "") or int(info.mtime))
        if not seconds.is_finite() or not _FIRST <= seconds < _END:
            return 0
        return int((seconds * 10**9).to_integral_value(rounding="ROUND_FLOOR"))
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def _extents(info: tarfile.TarInfo) -> tuple[Extent, ...]:
    """Where the data lies; a sparse file's map must be in order and inside the file.

    GNU's older headers have room for four pieces, and zeros where they have fewer.
    """
    if info.sparse is None:
        return (Extent(0, info.offset_data, info.size),) if info.size else ()
    extents: list[Extent] = []
    end, plain = 0, info.offset_data
    for offset, length in cast(list[tuple[int, int]], info.sparse):
        if not length:
            continue
        if length < 0 or offset < end or offset + length > info.size:
            _bad_map()
        extents.append(Extent(offset, plain, length))
        end, plain = offset + length, plain + length
    return tuple(extents)


def _bad_map() -> NoReturn:
    raise Malformed("a sparse file's map in the tar is out of order or outside the file")


def pax_xattrs(records: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes from PAX records: star's as they are, libarchive's in base64 with names in URL encoding."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            try:
                found.setdefault(_unquoted(key[len(_LIBARCHIVE) :]), base64.b64decode(value + "=" * (-len(value) % 4)))
            except (binascii.Error, ValueError):
                raise Malformed("an extended attribute in the tar is no base64") from None
        elif key.startswith(_SCHILY):
            found[_encoded(key[len(_SCHILY) :])] = _encoded(value)
    return tuple((name, value) for name, value in found.items() if name and b"\0" not in name)


def _unquoted(name: str) -> bytes:
    return unquote_to_bytes(_encoded(name))
