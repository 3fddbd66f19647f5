"""What stands before an entry in a tar about that entry: PAX records and GNU's maps of sparse
files.

`tar.py` calls this in a worker thread with the bytes of one header's data, which it has bounded.

Rules that hold here:

- pure, and linear in the size of the data
- a damaged record is Malformed, whatever follows it
- text is UTF-8 with surrogates for other bytes, so that names and values survive as they are
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
_FIRST, _END = (
    -62_135_596_800,
    253_402_300_800,
)  # seconds: the years 1 to 9999, as tables of contents have them
_LENGTH = re.compile(rb"([0-9]{1,9}) ")
_NUMBER = re.compile(r"[+-]?[0-9]{1,100}")
_OFFSET, _SIZE = "GNU.sparse.offset", "GNU.sparse.numbytes"  # of each piece, in the oldest PAX form

SparseMap = list[tuple[int, int]]
"""Pieces of a sparse file, each an offset and a length, in the order of their data."""


def parse_records(data: bytes) -> dict[str, str]:
    """The records of a PAX header; the last of a key holds. Raises Malformed.

    Offsets and sizes of pieces, which repeat, become one record `GNU.sparse.map`, as later versions
    of the format have it.
    """
    found: dict[str, str] = {}
    pieces: list[str] = []
    at = 0
    while at < len(data) and data[at]:
        match = _LENGTH.match(data, at)
        end = at + int(match[1]) if match is not None else 0
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
            found[name] = text
        at = end
    if pieces:
        found.setdefault("GNU.sparse.map", ",".join(pieces))
    return found


def decoded(data: bytes) -> str:
    """Bytes of a tar as text."""
    return data.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Text of a tar as the bytes that it was."""
    return text.encode("utf-8", "surrogateescape")


def number_of(records: Mapping[str, str], key: str) -> int | None:
    """A number, or None if there is no such record or it has no value. Raises Malformed."""
    text = records.get(key)
    if not text:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise Malformed(f"the PAX record {key} in the tar is not a number")
    return int(text)


def nanoseconds(text: str, seconds: int) -> int:
    """The time of a record, else the header's, in nanoseconds since the epoch.

    What cannot be a time is the epoch.
    """
    try:
        time = Decimal(text or seconds)
        if not time.is_finite() or not _FIRST <= time < _END:
            return 0
        return int((time * 10**9).to_integral_value(rounding="ROUND_FLOOR"))
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def pax_xattrs(records: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes from PAX records: star's as they are, libarchive's in base64 with names
    in URL encoding.
    """
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            try:
                name = unquote_to_bytes(encoded(key[len(_LIBARCHIVE) :]))
                found.setdefault(name, base64.b64decode(value + "=" * (-len(value) % 4)))
            except (binascii.Error, ValueError):
                raise Malformed("an extended attribute in the tar is not base64") from None
        elif key.startswith(SCHILY):
            found[encoded(key[len(SCHILY) :])] = encoded(value)
    return tuple((name, value) for name, value in found.items() if name and b"\0" not in name)


def sparse_map(records: Mapping[str, str], read: Callable[[int], bytes]) -> SparseMap | None:
    """The map that records of a PAX header describe; None if the file is not sparse.

    Raises Malformed.

    `read`: for version 1.0, whose map is the beginning of the data.
    """
    if records.get("GNU.sparse.major") == "1" and records.get("GNU.sparse.minor") == "0":
        return _map_in_data(read)
    written = records.get("GNU.sparse.map")
    if written:
        return _paired(written.split(","))
    return [] if "GNU.sparse.size" in records else None


def _map_in_data(read: Callable[[int], bytes]) -> SparseMap:
    """Decimal numbers, a line each: how many pieces there are, then their offsets and lengths.

    Padded to a block.
    """
    numbers = _lines(read)
    [count] = _numbers([next(numbers)])
    return _paired([next(numbers) for _ in range(2 * count)])


def _lines(read: Callable[[int], bytes]) -> Iterator[str]:
    rest = b""
    while True:
        block = read(BLOCK)
        if len(block) < BLOCK:
            raise Malformed("a sparse file's map in the tar is cut off")
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > BLOCK:
            raise Malformed("a sparse file's map in the tar has no numbers")
        yield from map(decoded, lines)


def _numbers(texts: list[str]) -> list[int]:
    if not all(_NUMBER.fullmatch(text) for text in texts):
        raise Malformed("a sparse file's map in the tar has no numbers")
    return [int(text) for text in texts]


def _paired(texts: list[str]) -> SparseMap:
    numbers = _numbers(texts)
    if len(numbers) % 2:
        raise Malformed("a sparse file's map in the tar is cut off")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def old_sparse_map(header: bytes, read: Callable[[int], bytes]) -> tuple[SparseMap, int]:
    """The map of an entry of GNU's type `S`, whose header has four pieces and blocks after it more,
    and the file's size.
    """
    found, more = _pieces(header, 386, 4), header[482]
    size = number(header[483:495])
    while more:
        block = read(BLOCK)
        if len(block) < BLOCK:
            raise Malformed("a sparse file's map in the tar is cut off")
        found += _pieces(block, 0, 21)
        more = block[504]
    return found, size


def _pieces(block: bytes, at: int, count: int) -> SparseMap:
    """Pieces of a header; zeros stand where there are fewer."""
    fields = (block[at + 24 * n : at + 24 * (n + 1)] for n in range(count))
    return [(number(field[:12]), number(field[12:])) for field in fields if field[0]]
