"""A layer's index as bytes: what the shelf keeps of a layer beside its plain tar.

One line of JSON says what follows (version, diff ID, sizes, SHA-256 of the rest); the rest is the entries as JSON, deflated. Names are text
with surrogate escapes. For a Debian root filesystem that is about 25 bytes an entry.

Rules that hold here: pure; whatever is not exactly what `encode` made is None, so that a damaged file means one more unpacking and
never a wrong tree.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import TypeAlias

from ocifs.errors import OcifsError
from ocifs.layers.member import Extent, Kind, LayerIndex, Member
from ocifs.oci.digest import Digest

KIND = "layer-index.1"

_Json: TypeAlias = str | int | list["_Json"]


def encode(index: LayerIndex) -> bytes:
    """The bytes of an index."""
    body = zlib.compress(json.dumps([_row(member) for member in index.members], separators=(",", ":")).encode(), 1)
    head = {
        "kind": KIND,
        "diff_id": str(index.diff_id),
        "plain_size": index.plain_size,
        "compression": index.compression,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + body


def decode(data: bytes) -> LayerIndex | None:
    """The index that some bytes are, or None."""
    line, _, body = data.partition(b"\n")
    try:
        head = json.loads(line)
        if head["kind"] != KIND or head["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        members = tuple(_member(row) for row in json.loads(zlib.decompress(body)))
        return LayerIndex(members, Digest.parse(head["diff_id"]), int(head["plain_size"]), str(head["compression"]))
    except (ValueError, KeyError, TypeError, IndexError, zlib.error, OcifsError):
        return None


def _row(member: Member) -> list[_Json]:
    return [
        _text(member.path),
        member.kind.value,
        member.mode,
        member.uid,
        member.gid,
        member.mtime_ns,
        member.size,
        _text(member.link),
        member.rdev,
        [[_text(name), _text(value)] for name, value in member.xattrs],
        [[extent.offset, extent.plain, extent.length] for extent in member.extents],
    ]


def _member(row: list[object]) -> Member:
    path, kind, mode, uid, gid, mtime_ns, size, link, rdev, xattrs, extents = row
    return Member(
        _bytes(path),
        _KINDS[str(kind)],
        *(mode, uid, gid, mtime_ns, size),  # type: ignore[arg-type]  # written by _row and checked by its SHA-256
        _bytes(link),
        rdev,  # type: ignore[arg-type]
        tuple((_bytes(name), _bytes(value)) for name, value in xattrs),  # type: ignore[attr-defined]
        tuple(Extent(*extent) for extent in extents),  # type: ignore[attr-defined]
    )


_KINDS = {kind.value: kind for kind in Kind}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: object) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")
