"""Content codings (RFC 9110, 8.4), and the decoding of small bodies.

All requests accept only `identity`, so an encoded response is an error of the server. The
registry's connection decodes lists, tokens, manifests and errors here. Blobs are decoded in
`registry.blobstream`.

Rules that hold here:

- Pure. `decoded` may use as much CPU time as its limit allows: callers run it in a worker thread.
- Content-Encoding is not reliable. Storage servers label raw content `aws-chunked`, `utf-8`,
  `binary` or `none`, and a gzip layer `gzip`. Only gzip and deflate data with the right first bytes
  are decoded. The digest decides later, if there is one.
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
_MEMBERS = 16  # gzip members in one body
_ZLIB_CMF = 0x78  # the first byte of zlib data with the default window


def codings(headers: Mapping[str, str]) -> frozenset[str]:
    """The registered codings in Content-Encoding. Other labels are ignored."""
    listed = optional_field(headers, "content-encoding").lower().split(",")
    return frozenset(name.strip() for name in listed) & _REAL


def looks_encoded(names: frozenset[str], start: bytes) -> bool:
    """Whether the first bytes are those of gzip or deflate data, as the label claims."""
    if names & GZIP:
        return start.startswith(_MAGIC)
    return bool(names & _DEFLATE) and start[:1] == bytes([_ZLIB_CMF])


def decoded(headers: Mapping[str, str], body: bytes, limit: int, what: str) -> bytes:
    """A body without its coding. Raises Malformed, LimitExceeded.

    A body without a coding, or with an unsupported one, is returned unchanged.
    """
    if not looks_encoded(codings(headers), body):
        return body
    parts: list[bytes] = []
    remaining = body
    size = 0
    for _ in range(_MEMBERS):
        decoder = decoder_for(remaining)
        try:
            # One byte more than the limit, so that a longer body is detected.
            part = decoder.decompress(remaining, limit + 1 - size)
        except zlib.error:
            raise Malformed(
                f"{what}: invalid {' and '.join(sorted(codings(headers)))} data"
            ) from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise LimitExceeded(f"{what} decompresses to more than {limit} bytes")
        if not decoder.eof:
            raise Malformed(f"{what}: the compressed data end early")
        # This copies the rest of the body. The number of members is bounded for that reason.
        remaining = decoder.unused_data
        if not remaining:
            return b"".join(parts)
    raise Malformed(f"{what}: more than {_MEMBERS} gzip members")


def decoder_for(start: bytes) -> zlib._Decompress:
    """A decoder for data for which `looks_encoded` is true."""
    # In zlib, 31 selects a gzip header and 15 a zlib header, each with the largest window.
    return zlib.decompressobj(31 if start.startswith(_MAGIC) else 15)
