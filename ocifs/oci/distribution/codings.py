"""Content codings: what `Content-Encoding` says, and decoding of small bodies (RFC 9110, 8.4).

`identity` is asked for everywhere, so an encoded answer is a mistake of the server. The registry's
connection decodes lists, tokens, manifests and errors here; blobs are `registry.blobstream`'s.

- Pure. `decoded` uses the CPU for as long as its limit allows: callers run it in a worker thread.
- Labels lie. Storage servers label raw content `aws-chunked`, `utf-8`, `binary` or `none`, and a
  gzip layer `gzip`. Only gzip and deflate data that look like it are decoded; the digest decides
  later, if there is one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ocifs.errors import LimitExceeded, Malformed
from ocifs.oci.distribution.headers import optional_field

GZIP = frozenset({"gzip", "x-gzip"})
_DEFLATE = frozenset({"deflate"})
_REAL = GZIP | _DEFLATE | {"compress", "x-compress", "br", "zstd", "dcb", "dcz"}
_MAGIC = b"\x1f\x8b"
_MEMBERS = 16  # one after the other in one body
_ZLIB_CMF = 0x78  # the first byte of zlib data with the usual window


def codings(headers: Mapping[str, str]) -> frozenset[str]:
    """The registered codings in Content-Encoding; empty for content that is as it is, whatever it
    is labelled.
    """
    listed = optional_field(headers, "content-encoding").lower().split(",")
    return frozenset(name.strip() for name in listed) & _REAL


def looks_encoded(names: frozenset[str], start: bytes) -> bool:
    """Whether data that begin so can be gzip or deflate data, as their label claims."""
    if names & GZIP:
        return start.startswith(_MAGIC)
    return bool(names & _DEFLATE) and start[:1] == bytes([_ZLIB_CMF])


def decoded(headers: Mapping[str, str], body: bytes, limit: int, what: str) -> bytes:
    """A body without its coding; as it is if it has none, or another one.

    Raises Malformed, LimitExceeded.
    """
    if not looks_encoded(codings(headers), body):
        return body
    parts: list[bytes] = []
    left = body
    size = 0
    for _ in range(_MEMBERS):
        decoder = decoder_for(left)
        try:
            part = decoder.decompress(left, limit + 1 - size)
        except zlib.error:
            raise Malformed(
                f"{what}: invalid {' and '.join(sorted(codings(headers)))} data"
            ) from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise LimitExceeded(f"{what} unpacks to more than {limit} bytes")
        if not decoder.eof:
            raise Malformed(f"{what}: the compressed data end early")
        left = decoder.unused_data  # a copy of the rest, so members are few
        if not left:
            return b"".join(parts)
    raise Malformed(f"{what}: more than {_MEMBERS} gzip members")


def decoder_for(start: bytes) -> zlib._Decompress:
    """A decoder for data that look encoded."""
    return zlib.decompressobj(31 if start.startswith(_MAGIC) else 15)
