"""Parses one JSON entry of a CRFS table of contents.

Rules:

- Pure, for a worker thread.
- An invalid member is Malformed, never guessed. Unknown members are ignored.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeAlias

from ocifs.errors import Malformed
from ocifs.layers.index.entry import EntryKind, LayerEntry, clean
from ocifs.layers.spans.span import Checksum
from ocifs.layers.tar.reader import device, owner
from ocifs.oci.digest import Digest

TocEntry: TypeAlias = dict[str, object]

ALGORITHM = "sha256"
WIDTH = 32
"""Digests are not shortened: the author of a table could create two contents for half a digest."""

KINDS = {
    "reg": EntryKind.FILE,
    "dir": EntryKind.DIRECTORY,
    "symlink": EntryKind.SYMLINK,
    "hardlink": EntryKind.HARDLINK,
    "char": EntryKind.CHARACTER,
    "block": EntryKind.BLOCK,
    "fifo": EntryKind.FIFO,
}
_REPLACEMENT = "\ufffd"
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)  # Go's zero time: the time is unknown


def parse_checksum(text: str) -> Checksum | None:
    """Parse a digest; None for an empty text. Raises Malformed."""
    if not text:
        return None
    digest = Digest.parse(text)
    if digest.algorithm != ALGORITHM or not digest.verifiable:
        raise Malformed(f"the table of contents has a digest that is not {ALGORITHM}")
    return Checksum(ALGORITHM, bytes.fromhex(digest.encoded))


def parse_entry(toc_entry: TocEntry) -> LayerEntry:
    """Convert an entry, without extents. Raises Malformed."""
    kind = KINDS.get(parse_text(toc_entry, "type"))
    if kind is None:
        raise Malformed(
            "the table of contents has an entry of unknown type"
            f" {parse_text(toc_entry, 'type')[:40]!r}"
        )
    link = _name(toc_entry, "linkName") if kind in (EntryKind.SYMLINK, EntryKind.HARDLINK) else b""
    is_device = kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    return LayerEntry(
        clean(_name(toc_entry, "name")),
        kind,
        parse_number(toc_entry, "mode") & 0o7777,
        owner(parse_number(toc_entry, "uid")),
        owner(parse_number(toc_entry, "gid")),
        parse_time(parse_text(toc_entry, "modtime")),
        parse_number(toc_entry, "size") if kind is EntryKind.FILE else 0,
        clean(link) if kind is EntryKind.HARDLINK else link,
        _device(toc_entry) if is_device else 0,
        _xattrs(toc_entry.get("xattrs")),
    )


def _device(toc_entry: TocEntry) -> int:
    major, minor = parse_number(toc_entry, "devMajor"), parse_number(toc_entry, "devMinor")
    # A table is not a tar: a number that Linux would truncate is rejected instead.
    number = device(major, minor)
    if (os.major(number), os.minor(number)) != (major, minor):
        raise Malformed("a device number in the table of contents is out of range")
    return number


def parse_number(toc_entry: TocEntry, name: str) -> int:
    """Return a member that is a natural number; 0 if it is missing."""
    value = toc_entry.get(name)
    if value is None:
        return 0
    # JSON's true and false are integers in Python.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise Malformed(f"the table of contents has a {name} that is not a natural number")
    return value


def parse_text(toc_entry: TocEntry, name: str) -> str:
    """Return a member that is a string; empty if it is missing."""
    value = toc_entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"the table of contents has a {name} that is not a string")
    return value


def _name(toc_entry: TocEntry, name: str) -> bytes:
    """Return a name as bytes.

    JSON contains UTF-8 only. Go replaces other bytes with U+FFFD, so that the name in the table
    differs from the name in the tar.
    """
    text = parse_text(toc_entry, name)
    if _REPLACEMENT in text or "\0" in text:
        raise Malformed("the table of contents has a name that JSON cannot represent")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Malformed("the table of contents has a name that JSON cannot represent") from None


def parse_time(text: str) -> int:
    """Convert an RFC 3339 time to nanoseconds since the epoch; 0 for an empty text."""
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    if match is None:
        raise Malformed(f"the table of contents has an invalid time: {text[:40]!r}")
    try:
        offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
        zone = timezone(-offset if match[8] == "-" else offset)
        time = datetime(*(int(match[part]) for part in range(1, 7)), tzinfo=zone)  # type: ignore[misc,arg-type]
    except ValueError:
        raise Malformed(f"the table of contents has an invalid time: {text[:40]!r}") from None
    if time == _NO_TIME:
        return 0
    # Integers, since a float of seconds has too few digits for nanoseconds.
    elapsed = time - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 10**9 + int((match[7] or "0").ljust(9, "0"))


def _xattrs(value: object) -> tuple[tuple[bytes, bytes], ...]:
    """Parse extended attributes. Their values are in base64."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise Malformed("the table of contents has extended attributes that are not an object")
    xattrs = []
    for name, encoded in value.items():
        try:
            xattrs.append((name.encode(), base64.b64decode(encoded, validate=True)))
        except (binascii.Error, TypeError, ValueError):
            raise Malformed(
                "an extended attribute in the table of contents is not base64"
            ) from None
    # listxattr(2) returns names with a NUL behind each, so such names cannot exist.
    return tuple((name, data) for name, data in xattrs if name and b"\0" not in name)
