"""Parses the headers of tar entries.

`read_simple_header` parses the headers of nearly all entries, fast. `parse_header` parses the rest:
V7, ustar, star and GNU headers. ocifs does not use tarfile, since its results for unusual headers
change between patch releases of Python (docs/decisions/0261-tar-header-parser.md).

Rules:

- Pure.
- Both functions return the same for the same header.
- A header with a wrong checksum or an invalid number is Malformed.
"""

from __future__ import annotations

import re
import zlib
from itertools import pairwise
from typing import NamedTuple

from ocifs.errors import Malformed
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry, clean

BLOCK = 512
_KINDS = {
    48: EntryKind.FILE,
    49: EntryKind.HARDLINK,
    50: EntryKind.SYMLINK,
    53: EntryKind.DIRECTORY,
}  # b"0", b"1", b"2", b"5"
# Mode, owner, group, size, time and checksum, as GNU tar, bsdtar and Go write them when they are
# not large: octal digits to the end.
_NUMBERS = re.compile(
    rb"([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{11})[\0 ]([0-7]{11})[\0 ]([0-7]{6})\0 "
)
_NAME, _MODE, _CHECKSUM, _TYPE, _LINK, _MAGIC = 100, 100, 148, 156, 157, 257
_DEVICE, _PREFIX = 329, 345
_FIELDS = (100, 108, 116, 124, 136, 148)  # offsets of mode, owner, group, size, time, and the end
_MAGICS = (b"ustar\x0000", b"ustar  \0")  # POSIX, GNU
_DEVICES = (bytes(16), b"0000000\0" * 2, b"000000 \0" * 2)
_REST = bytes(BLOCK - _PREFIX)  # no prefix of the name, no fields of GNU or star
_END_OF_PREFIX, _END_OF_STARS = 500, 476
# A time in a field of a header, or an empty field.
_CLOCK = re.compile(rb"[ \0]*[0-7]*([ \0].*)?|[\x80\xff].*", re.DOTALL)
_MAX_NUMBER = 1 << 63
# Types of GNU. Their headers contain no prefix of the name.
_GNU_TYPES = frozenset((b"L", b"K", b"S"))


class TarHeader(NamedTuple):
    """The fields of a header.

    `size`: of the data that follows, if the type has data. `name` and `link` may be truncated.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    raw: bytes

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number. Raises Malformed."""
        return number(self.raw[_DEVICE : _DEVICE + 8]), number(self.raw[_DEVICE + 8 : _PREFIX])


def read_simple_header(header: bytes, start: int) -> LayerEntry | None:
    """Return the entry of a simple header, or None for any other header.

    `start`: the position of the entry's content in the tar.
    """
    if (
        len(header) != BLOCK
        or header[_MAGIC : _MAGIC + 8] not in _MAGICS
        or header[_PREFIX:] != _REST
    ):
        return None
    kind = _KINDS.get(header[_TYPE])
    numbers = _NUMBERS.match(header, _MODE)
    if (
        kind is None
        or numbers is None
        or header[_DEVICE:_PREFIX] not in _DEVICES
        or not header.isascii()
    ):
        return None
    mode, uid, gid, size, time, checksum = [int(number, 8) for number in numbers.groups()]
    # The sum of 512 ASCII bytes is less than 65,521, so the low half of zlib's Adler-32 is the sum
    # plus 1. The checksum's own field counts as spaces.
    if (zlib.adler32(header) & 0xFFFF) - 1 - sum(header[_CHECKSUM:_TYPE]) + 8 * 32 != checksum:
        return None
    path, link = header[:_NAME].partition(b"\0")[0], header[_LINK:_MAGIC].partition(b"\0")[0]
    if not path or (kind is EntryKind.FILE and path.endswith(b"/")):
        return None
    if kind is not EntryKind.FILE:
        size = 0
    extents = (Extent(0, start, size),) if size else ()
    link = clean(link) if kind is EntryKind.HARDLINK else link if kind is EntryKind.SYMLINK else b""
    return LayerEntry(
        clean(path), kind, mode & 0o7777, uid, gid, time * 10**9, size, link, 0, (), extents
    )


def parse_header(block: bytes) -> TarHeader:
    """Parse a header of any format. Raises Malformed."""
    if len(block) < BLOCK:
        raise Malformed("the tar ends in the middle of a header")
    if not checksum_holds(block):
        raise Malformed("bad checksum")
    kind = block[_TYPE : _TYPE + 1]
    name = _text(block[:_NAME])
    end = _end_of_prefix(block)
    if end > _PREFIX and kind not in _GNU_TYPES and (prefix := _text(block[_PREFIX:end])):
        name = b"/".join(part for part in (prefix, name) if part)
    # A single match saves most of the time.
    octal = _NUMBERS.match(block, _MODE)
    if octal is not None:
        mode, uid, gid, size, mtime = [int(digits, 8) for digits in octal.groups()[:5]]
    else:
        mode, uid, gid, size, mtime = (
            number(block[start:stop]) for start, stop in pairwise(_FIELDS)
        )
    return TarHeader(name, mode, uid, gid, size, mtime, kind, _text(block[_LINK:_MAGIC]), block)


def checksum_holds(block: bytes) -> bool:
    """Whether a block has a valid checksum, of signed or unsigned bytes.

    The checksum's own field counts as spaces.
    """
    if len(block) != BLOCK:
        return False
    try:
        stated = number(block[_CHECKSUM:_TYPE])
    except Malformed:
        return False
    unsigned = sum(block) - sum(block[_CHECKSUM:_TYPE]) + 8 * 32
    if stated == unsigned:
        return True
    rest = block[:_CHECKSUM] + block[_TYPE:]
    return stated == unsigned - 256 * sum(byte > 127 for byte in rest)


def number(field: bytes) -> int:
    """Parse octal digits, or GNU's base 256 if the first bit is set. Raises Malformed."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & (1 << bits) - 1
        # The bits behind the first one are a number in two's complement.
        value -= (1 << bits) * (value >> (bits - 1))
        if not -_MAX_NUMBER <= value < _MAX_NUMBER:
            raise Malformed("a number has more than 64 bits")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if digits.strip(b"01234567"):
        raise Malformed("a field is not a number")
    return int(digits or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _end_of_prefix(header: bytes) -> int:
    """Return the end of the name's prefix; its start if the header has no prefix.

    Headers of POSIX have a prefix, those of star a shorter one, followed by two times. Headers of
    GNU have times in its place, those of V7 nothing. Go before 1.8 wrote prefixes into GNU headers,
    and layers with them still exist.
    """
    if header[257:263] == b"ustar\0":
        return _END_OF_STARS if header[508:512] == b"tar\0" else _END_OF_PREFIX
    if header[257:265] == b"ustar  \0" and not all(
        _CLOCK.fullmatch(header[start : start + 12]) for start in (_PREFIX, _PREFIX + 12)
    ):
        return _END_OF_PREFIX
    return _PREFIX
