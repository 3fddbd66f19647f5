"""Parses the headers that precede an entry: PAX records, and GNU's maps of sparse files.

`reader.py` calls this in a worker thread, with the data of one header. It has bounded the size.

Rules:

- Pure, and linear in the size of the data.
- A damaged record is Malformed, even if a later record replaces it.
- Text is UTF-8 with surrogates for other bytes, so that names and values are not changed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote_to_bytes

from ocifs.errors import Malformed
from ocifs.layers.tar.header import BLOCK, number

SCHILY, _LIBARCHIVE = "SCHILY.xattr.", "LIBARCHIVE.xattr."
# Seconds of the years 1 to 9999, which tables of contents can represent.
_FIRST_TIME, _END_TIME = -62_135_596_800, 253_402_300_800
_LENGTH = re.compile(rb"([0-9]{1,9}) ")
# Bounded, since the conversion of long numbers takes quadratic time.
_NUMBER = re.compile(r"[+-]?[0-9]{1,100}")
_OFFSET, _SIZE = "GNU.sparse.offset", "GNU.sparse.numbytes"  # of each piece, in PAX version 0.0

SparseMap = list[tuple[int, int]]
"""The offset and length of each piece of a sparse file, in the order of their data."""


def parse_records(data: bytes) -> dict[str, str]:
    """Parse a PAX header; of records with the same key, the last is used. Raises Malformed.

    The repeated offsets and sizes of a sparse file become one record `GNU.sparse.map`, as in
    version 0.1 of the format.
    """
    records: dict[str, str] = {}
    pieces: list[str] = []
    start = 0
    while start < len(data) and data[start]:
        match = _LENGTH.match(data, start)
        end = start + int(match[1]) if match is not None else 0
        if match is None or end <= match.end() or end > len(data) or data[end - 1] != 0x0A:
            raise Malformed("a PAX header in the tar is damaged")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not key or not equals:
            raise Malformed("a PAX header in the tar is damaged")
        name, text = decoded(key), decoded(value)
        if name in (_OFFSET, _SIZE):
            if name != (_SIZE if len(pieces) % 2 else _OFFSET):
                raise Malformed("the pieces of a sparse file in the tar are out of order")
            pieces.append(text)
        else:
            records[name] = text
        start = end
    # A map in a record of its own has precedence.
    if pieces:
        records.setdefault("GNU.sparse.map", ",".join(pieces))
    return records


def decoded(data: bytes) -> str:
    """Decode bytes of a tar."""
    return data.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Encode text of a tar, as the inverse of `decoded`."""
    return text.encode("utf-8", "surrogateescape")


def number_of(records: Mapping[str, str], key: str) -> int | None:
    """Parse a numeric record; None if it is missing or empty. Raises Malformed."""
    text = records.get(key)
    if not text:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise Malformed(f"the PAX record {key} in the tar is not a number")
    return int(text)


def nanoseconds(text: str, seconds: int) -> int:
    """Return the time of a record, or else of the header, in nanoseconds since the epoch.

    An invalid time is the epoch.
    """
    try:
        # Decimal, since a float has too few digits for nanoseconds.
        time = Decimal(text or seconds)
        if not time.is_finite() or not _FIRST_TIME <= time < _END_TIME:
            return 0
        return int((time * 10**9).to_integral_value(rounding="ROUND_FLOOR"))
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def pax_xattrs(records: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes in PAX records.

    star writes them unchanged, libarchive in base64 with URL-encoded names.
    """
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            try:
                name = unquote_to_bytes(encoded(key[len(_LIBARCHIVE) :]))
                # libarchive omits base64 padding. The same attribute in star's form has precedence.
                xattrs.setdefault(name, base64.b64decode(value + "=" * (-len(value) % 4)))
            except (binascii.Error, ValueError):
                raise Malformed("an extended attribute in the tar is not base64") from None
        elif key.startswith(SCHILY):
            xattrs[encoded(key[len(SCHILY) :])] = encoded(value)
    return tuple((name, value) for name, value in xattrs.items() if name and b"\0" not in name)


def sparse_map(records: Mapping[str, str], read: Callable[[int], bytes]) -> SparseMap | None:
    """Return the map of a sparse file by its PAX records; None if the file is not sparse.

    `read`: reads the data, which starts with the map in version 1.0. Raises Malformed.
    """
    if records.get("GNU.sparse.major") == "1" and records.get("GNU.sparse.minor") == "0":
        return _map_in_data(read)
    # Version 0.1 and, after `parse_records`, version 0.0.
    text = records.get("GNU.sparse.map")
    if text:
        return _paired(text.split(","))
    return [] if "GNU.sparse.size" in records else None


def _map_in_data(read: Callable[[int], bytes]) -> SparseMap:
    """Read the number of pieces, then their offsets and lengths: one decimal number a line.

    The map is padded to a block.
    """
    numbers = _lines(read)
    [count] = _numbers([next(numbers)])
    return _paired([next(numbers) for _ in range(2 * count)])


def _lines(read: Callable[[int], bytes]) -> Iterator[str]:
    rest = b""
    while True:
        block = read(BLOCK)
        if len(block) < BLOCK:
            raise Malformed("the map of a sparse file in the tar is truncated")
        *lines, rest = (rest + block).split(b"\n")
        # Each number must end within a block, which bounds the work on a map without line ends.
        if len(rest) > BLOCK:
            raise Malformed("the map of a sparse file in the tar has invalid numbers")
        yield from map(decoded, lines)


def _numbers(texts: list[str]) -> list[int]:
    if not all(_NUMBER.fullmatch(text) for text in texts):
        raise Malformed("the map of a sparse file in the tar has invalid numbers")
    return [int(text) for text in texts]


def _paired(texts: list[str]) -> SparseMap:
    numbers = _numbers(texts)
    if len(numbers) % 2:
        raise Malformed("the map of a sparse file in the tar is truncated")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def old_sparse_map(header: bytes, read: Callable[[int], bytes]) -> tuple[SparseMap, int]:
    """Return the map and the size of a file of GNU's type `S`.

    The header contains four pieces, the blocks behind it further ones.
    """
    # Offsets of `struct oldgnu_header`, and below of `struct sparse_header` (tar.h of GNU tar).
    pieces, is_extended = _pieces(header, 386, 4), header[482]
    size = number(header[483:495])
    while is_extended:
        block = read(BLOCK)
        if len(block) < BLOCK:
            raise Malformed("the map of a sparse file in the tar is truncated")
        pieces += _pieces(block, 0, 21)
        is_extended = block[504]
    return pieces, size


def _pieces(block: bytes, start: int, count: int) -> SparseMap:
    """Parse up to `count` pieces. Unused fields are zeros."""
    fields = (block[start + 24 * n : start + 24 * (n + 1)] for n in range(count))
    return [(number(field[:12]), number(field[12:])) for field in fields if field[0]]
