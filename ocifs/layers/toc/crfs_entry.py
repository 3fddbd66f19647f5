"""One entry of a layer's table of contents, as eStargz and zstd:chunked write it in JSON.

Rules that hold here: pure; a member that is there and makes no sense is Malformed, never a guess;
one that is unknown means nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeAlias

from ocifs.errors import Malformed
from ocifs.layers.index.entry import Kind, Member, clean
from ocifs.layers.spans.span import Checksum
from ocifs.layers.tar.reader import device, owner
from ocifs.oci.digest import Digest

Entry: TypeAlias = dict[str, object]

ALGORITHM = "sha256"
WIDTH = 32
"""Digests are kept whole: whoever made the table may also have made a second content for half of one."""

KINDS = {
    "reg": Kind.FILE,
    "dir": Kind.DIRECTORY,
    "symlink": Kind.SYMLINK,
    "hardlink": Kind.HARDLINK,
    "char": Kind.CHARACTER,
    "block": Kind.BLOCK,
    "fifo": Kind.FIFO,
}
_REPLACEMENT = "\ufffd"
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)  # what Go writes for a time that is not known


def parse_checksum(text: str) -> Checksum | None:
    if not text:
        return None
    digest = Digest.parse(text)
    if digest.algorithm != ALGORITHM or not digest.verifiable:
        raise Malformed(f"the table of contents has digests other than {ALGORITHM}")
    return Checksum(ALGORITHM, bytes.fromhex(digest.encoded))


def parse_member(entry: Entry) -> Member:
    kind = KINDS.get(parse_text(entry, "type"))
    if kind is None:
        raise Malformed(
            f"the table of contents has an entry of unknown type {parse_text(entry, 'type')[:40]!r}"
        )
    link = _name(entry, "linkName") if kind in (Kind.SYMLINK, Kind.HARDLINK) else b""
    is_device = kind in (Kind.CHARACTER, Kind.BLOCK)
    return Member(
        clean(_name(entry, "name")),
        kind,
        parse_number(entry, "mode") & 0o7777,
        owner(parse_number(entry, "uid")),
        owner(parse_number(entry, "gid")),
        parse_time(parse_text(entry, "modtime")),
        parse_number(entry, "size") if kind is Kind.FILE else 0,
        clean(link) if kind is Kind.HARDLINK else link,
        _device(entry) if is_device else 0,
        _xattrs(entry.get("xattrs")),
    )


def _device(entry: Entry) -> int:
    major, minor = parse_number(entry, "devMajor"), parse_number(entry, "devMinor")
    number = device(major, minor)
    if (os.major(number), os.minor(number)) != (major, minor):
        raise Malformed("a device's number in the table of contents is out of range")
    return number


def parse_number(entry: Entry, name: str) -> int:
    """A member that is a natural number; 0 where it is not there."""
    value = entry.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise Malformed(f"the table of contents has a {name} that is no natural number")
    return value


def parse_text(entry: Entry, name: str) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"the table of contents has a {name} that is no text")
    return value


def _name(entry: Entry, name: str) -> bytes:
    """A name as bytes.

    JSON holds no others than UTF-8: Go writes a replacement for them, which would show another name
    than the tar's.
    """
    text = parse_text(entry, name)
    if _REPLACEMENT in text or "\0" in text:
        raise Malformed("the table of contents has a name that it cannot spell")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Malformed("the table of contents has a name that it cannot spell") from None


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of a time as RFC 3339 has it; 0 for none."""
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    if match is None:
        raise Malformed(f"the table of contents has a time that is none: {text[:40]!r}")
    try:
        away = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
        zone = timezone(-away if match[8] == "-" else away)
        when = datetime(*(int(match[part]) for part in range(1, 7)), tzinfo=zone)  # type: ignore[misc,arg-type]
    except ValueError:
        raise Malformed(f"the table of contents has a time that is none: {text[:40]!r}") from None
    if when == _NO_TIME:
        return 0
    past = when - _EPOCH
    return (past.days * 86_400 + past.seconds) * 10**9 + int((match[7] or "0").ljust(9, "0"))


def _xattrs(value: object) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes, whose values are in base64."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise Malformed("the table of contents has extended attributes that are no object")
    found = []
    for name, encoded in value.items():
        try:
            found.append((name.encode(), base64.b64decode(encoded, validate=True)))
        except (binascii.Error, TypeError, ValueError):
            raise Malformed("an extended attribute in the table of contents is no base64") from None
    return tuple((name, data) for name, data in found if name and b"\0" not in name)
