"""eStargz: a gzip layer of many members, with a table of contents at its end (stargz-snapshotter,
docs/estargz.md).

    member … member                 the tar; each file's content begins a member of its own
    member                          the table: a tar with one file, `stargz.index.json`
    footer                          an empty member whose extra field says where the table begins

Or the table lies apart, as a blob beside the layer, and the footer says so and nothing else.

What is trusted is the annotation of the layer's descriptor, in a manifest whose digest was
verified: it names the digest of the table's plain JSON. A footer without it means nothing.

Rules that hold here: pure; the footer and the compressed table are not trusted: they lead to bytes
that must have the digest.
"""

from __future__ import annotations

import re
import zlib

from ocifs.errors import IntegrityError, LimitExceeded, Malformed
from ocifs.layers.tar.header import BLOCK, parse_header
from ocifs.layers.toc.crfs import CrfsDialect, Toc, read_table
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, Limits

ANNOTATION = "containerd.io/snapshot/stargz/toc.digest"
TAIL = 51
"""How many of a blob's last bytes hold its footer."""

_TABLE = "stargz.index.json"
PREFETCH = b".prefetch.landmark"
"""The file before which those stand that are to be prefetched."""
LANDMARKS = frozenset({PREFETCH, b".no.prefetch.landmark"})
"""Files that only say something about the others."""
_HIDDEN = LANDMARKS | {_TABLE.encode()}
# The header of an empty gzip member with one extra field (RFC 1952, 2.3.1), and its end. MTIME, XFL
# and OS may be anything.
_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ\x01\x00\x00\xff\xff\x00{8}",
    re.DOTALL,
)
_LEGACY = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x16\x00([0-9a-f]{16})STARGZ\x01\x00\x00\xff\xff\x00{8}", re.DOTALL
)
_APART = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x15\x00SG\x11\x00STARGZEXTERNALTOC\x01\x00\x00\xff\xff\x00{8}\Z",
    re.DOTALL,
)


def end_of_content(tail: bytes, size: int) -> int | None:
    """Where in a blob of that size its content ends, by its last bytes, where its table lies apart;
    None where they do not say so.
    """
    match = _APART.search(tail[-TAIL:])
    return None if match is None else size - len(match[0])


def table_place(tail: bytes, size: int) -> tuple[int, int]:
    """Where in a blob of that size its compressed table lies, [start, stop), by its last bytes.

    Raises Malformed.
    """
    for footer in (_FOOTER, _LEGACY):
        for match in footer.finditer(tail[-TAIL:]):
            start, stop = int(match[1], 16), size - len(match[0])
            if match.end() == len(tail[-TAIL:]) and 0 <= start < stop:
                return start, stop
    raise Malformed("the layer has no footer of eStargz, though it is said to be one")


def read(compressed: bytes, start: int, digest: Digest, limits: Limits) -> Toc:
    """The table that these bytes are, of a layer whose content ends at `start`.

    Raises Malformed, IntegrityError and LimitExceeded.
    """
    text = _only_file(_inflated(compressed, limits))
    if not digest.matches(text):
        raise IntegrityError(f"the table of contents is not {digest}, which the manifest names")
    return read_table(text, CrfsDialect("gzip", start, _HIDDEN, PREFETCH), limits)


def _inflated(compressed: bytes, limits: Limits) -> bytes:
    allowed = limits.toc_bytes + 1 * MIB  # with the headers of a tar
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(compressed, allowed)
    except zlib.error as error:
        raise Malformed(f"the table of contents is no gzip: {error}") from None
    if inflater.unconsumed_tail and not inflater.eof:
        raise LimitExceeded(
            f"the table of contents has more than limits.toc_bytes ({limits.toc_bytes})"
        )
    if not inflater.eof:
        raise Malformed("the table of contents ends in the middle of its gzip member")
    return plain


def _only_file(tar: bytes) -> bytes:
    """The content of the tar's first entry, which must be the table."""
    header = parse_header(tar[:BLOCK])
    if header.name != _TABLE.encode() or header.kind not in (b"0", b"\0") or header.size < 0:
        raise Malformed(f"the table of contents is not a {_TABLE}")
    text = tar[BLOCK : BLOCK + header.size]
    if len(text) != header.size:
        raise Malformed("the table of contents is shorter than its tar says")
    return text
