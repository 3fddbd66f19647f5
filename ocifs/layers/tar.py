"""The entries of a plain tar that arrives as a stream, with the standard library's tarfile doing the formats.

Taken from tarfile: ustar, PAX, GNU long names and sparse files, base-256 numbers. Done here: what it loses (nanoseconds, binary extended
attributes, where the data lies), what it does too kindly (a damaged header in the middle is the end to it; global PAX headers apply,
though image-spec and Go's readers ignore them), and bounds.

Rules that hold here: blocking, for a worker thread; every byte of the stream is read, also after the end marker; a stream gives entries
or raises Malformed or LimitExceeded, nothing else.
"""

from __future__ import annotations

import base64
import binascii
import os
import tarfile
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import IO, NoReturn, cast
from urllib.parse import unquote_to_bytes

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.member import Extent, Kind, Member, clean
from ocifs.settings import Limits

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
_SCHILY, _LIBARCHIVE = "SCHILY.xattr.", "LIBARCHIVE.xattr."
_MAX_TIME = 1 << 62  # nanoseconds: what a signed 64-bit number holds, and more than any clock
MAX_ID = (1 << 32) - 2
_MEMBER_COST = 64  # bytes that an entry counts at least against limits.layer_index_bytes


class PlainStream:
    """The file that tarfile reads: forward only; what it reads of one entry's headers is bounded, what it seeks over is not kept."""

    def __init__(self, pieces: Iterator[bytes], limits: Limits) -> None:
        self._pieces = pieces
        self._limits = limits
        self._buffer = memoryview(b"")
        self._position = 0
        self._budget = limits.layer_header_bytes

    def new_entry(self) -> None:
        self._budget = self._limits.layer_header_bytes

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._budget:
            raise LimitExceeded(
                f"an entry's headers take more than limits.layer_header_bytes ({self._limits.layer_header_bytes})"
            )
        self._budget -= size
        parts: list[bytes] = []
        while size and self._fill():
            part = self._buffer[:size]
            parts.append(bytes(part))
            self._consume(len(part))
            size -= len(part)
        return b"".join(parts)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise Malformed("an entry of the tar has a negative size")
        while self._position < position and self._fill():
            self._consume(min(len(self._buffer), position - self._position))
        return self._position

    def drain(self) -> int:
        """Read what is left; gives the size of the whole."""
        while self._fill():
            self._consume(len(self._buffer))
        return self._position

    def _fill(self) -> bool:
        while not self._buffer:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._buffer = memoryview(piece)
        return True

    def _consume(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._position += count


class _Info(tarfile.TarInfo):
    """A header, read strictly: one that is damaged is an error wherever it stands."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Info:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            where = "it is no tar" if tarfile_.offset == 0 else f"a damaged header at byte {tarfile_.offset}"
            raise Malformed(f"the layer cannot be read: {where} ({error})") from None


class _Tar(tarfile.TarFile):
    """An archive in which global PAX headers mean nothing."""

    tarinfo = _Info
    members: list[tarfile.TarInfo]

    @property
    def pax_headers(self) -> dict[str, str]:
        return {}

    @pax_headers.setter
    def pax_headers(self, _: object) -> None:
        """Each entry begins without any."""


def read_tar(pieces: Iterator[bytes], limits: Limits, add: Callable[[Member], None]) -> int:
    """Give each entry to `add`, in order; returns the size of the plain tar. Raises Malformed, LimitExceeded."""
    stream = PlainStream(pieces, limits)
    counter = Counter(limits)
    try:
        tar = _open(stream)
        while tar is not None and (info := tar.next()) is not None:
            member = _member(info)
            if member is not None:
                counter.count(member)
                add(member)
            tar.members.clear()
            stream.new_entry()
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


class Counter:
    """How many entries there are and what they weigh."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._weight = 0

    def count(self, member: Member) -> None:
        self._entries += 1
        self._weight += _MEMBER_COST + len(member.path) + len(member.link) + 24 * len(member.extents)
        self._weight += sum(len(name) + len(value) for name, value in member.xattrs)
        if self._entries > self._limits.layer_members:
            raise LimitExceeded(f"the layer has more entries than limits.layer_members ({self._limits.layer_members})")
        if self._weight > self._limits.layer_index_bytes:
            raise LimitExceeded(
                f"the layer's names and attributes pass limits.layer_index_bytes ({self._limits.layer_index_bytes})"
            )


def _member(info: tarfile.TarInfo) -> Member | None:
    """An entry as a member; None for a type that nobody knows, which is skipped as tar(5) says."""
    kind = _KINDS.get(info.type)
    if kind is None:
        return None
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
        min(max(info.uid, 0), MAX_ID),
        min(max(info.gid, 0), MAX_ID),
        _time(info),
        info.size if is_file else 0,
        link if kind in (Kind.SYMLINK, Kind.HARDLINK) else b"",
        device(info.devmajor, info.devminor) if is_device else 0,
        _xattrs(info),
        _extents(info) if is_file else (),
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def device(major: int, minor: int) -> int:
    """A device's number, as `st_rdev` has it. Raises Malformed for one that Linux cannot have."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise Malformed("a device's number is out of range")
    return os.makedev(major, minor)


def _time(info: tarfile.TarInfo) -> int:
    """Nanoseconds since the epoch; what cannot be a time is the epoch."""
    try:
        seconds = Decimal(info.pax_headers.get("mtime", "") or int(info.mtime))
        if not seconds.is_finite() or abs(seconds) > _MAX_TIME // 10**9:
            return 0
        return int((seconds * 10**9).to_integral_value(rounding="ROUND_FLOOR"))
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def _extents(info: tarfile.TarInfo) -> tuple[Extent, ...]:
    """Where the data lies; a sparse file's map must be in order and inside the file."""
    if info.sparse is None:
        return (Extent(0, info.offset_data, info.size),) if info.size else ()
    extents: list[Extent] = []
    end, plain = 0, info.offset_data
    for offset, length in cast(list[tuple[int, int]], info.sparse):
        if length < 0 or offset < end or offset + length > info.size:
            _bad_map()
        if length:
            extents.append(Extent(offset, plain, length))
        end, plain = offset + length, plain + length
    return tuple(extents)


def _bad_map() -> NoReturn:
    raise Malformed("a sparse file's map in the tar is out of order or outside the file")


def _xattrs(info: tarfile.TarInfo) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes from PAX records: star's as they are, libarchive's in base64 with names in URL encoding."""
    found: dict[bytes, bytes] = {}
    for key, value in info.pax_headers.items():
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
