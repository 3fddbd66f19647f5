"""zstd:chunked: a zstd layer of many frames, with a table of contents in a skippable frame near its
end (containers/storage, pkg/chunked).

    frame … frame                   the tar; each chunk of a file's content is a frame of its own
    skippable frame                 the table: zstd-compressed JSON skippable frames
    what rebuilds the tar's headers, and a footer; neither is needed here

What is trusted are the annotations of the layer's descriptor, in a manifest whose digest was
verified: they say where the table lies, and name the digest of its compressed bytes. Podman 4 and
older wrote them under `io.containers`, later ones under `io.github.containers`. stargz-snapshotter,
and nerdctl with it, also writes eStargz' annotation, which names the digest of the table's plain
JSON; then both must hold, and its landmarks are hidden.

Rules that hold here: pure; nothing of the table is decompressed before its digest was checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ocifs.errors import IntegrityError, LimitExceeded, Malformed
from ocifs.layers import zstd
from ocifs.layers.toc.crfs import CrfsDialect, Toc, read_table
from ocifs.layers.toc.estargz import ANNOTATION as ESTARGZ
from ocifs.layers.toc.estargz import LANDMARKS, PREFETCH
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

_PREFIXES = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
_CHECKSUM, _POSITION = "manifest-checksum", "manifest-position"
_PLACE = re.compile(r"([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18})")
_FRAME_HEADER = 8  # of the skippable frame that the table is in (RFC 8878, 3.1.2)
_CRFS = "1"  # the one type of table that there is


@dataclass(frozen=True, slots=True)
class Promise:
    """What the annotations say of the table: bytes [start, start+length) of the blob have the
    digest, and unpack to `plain` bytes.

    `plain_digest`: of these, if eStargz' annotation names it.
    """

    digest: Digest
    start: int
    length: int
    plain: int
    plain_digest: Digest | None = None


def promise(annotations: Mapping[str, str]) -> Promise | None:
    """What a layer's annotations say of its table, or None.

    Raises Malformed for what makes no sense.
    """
    for prefix in _PREFIXES:
        if prefix + _CHECKSUM not in annotations:
            continue
        match = _PLACE.fullmatch(annotations.get(prefix + _POSITION, ""))
        if match is None or match[4] != _CRFS:
            raise Malformed(f"the annotation {prefix + _POSITION} says nothing that is known")
        digest, named = Digest.parse(annotations[prefix + _CHECKSUM]), annotations.get(ESTARGZ)
        plain_digest = None if named is None else Digest.parse(named)
        return Promise(digest, int(match[1]), int(match[2]), int(match[3]), plain_digest)
    return None


def check_place(said: Promise, size: int, limits: Limits) -> None:
    """Whether the table that is promised can be in a blob of that size, and be read.

    Raises Malformed and LimitExceeded.
    """
    if not (_FRAME_HEADER <= said.start < size and 0 < said.length <= size - said.start):
        raise Malformed("the table of contents is said to be outside the layer")
    if max(said.length, said.plain) > limits.toc_bytes:
        raise LimitExceeded(
            f"the table of contents has more than limits.toc_bytes ({limits.toc_bytes})"
        )


def read(compressed: bytes, said: Promise, limits: Limits) -> Toc:
    """The table that these bytes are. Raises Malformed, IntegrityError and LimitExceeded."""
    if not said.digest.matches(compressed):
        raise IntegrityError(
            f"the table of contents is not {said.digest}, which the manifest names"
        )
    try:
        text = zstd.first_of(compressed, said.plain + 1, limits.layer_window)
    except zstd.ZstdError as error:
        raise Malformed(f"the table of contents is no zstd: {error}") from None
    if len(text) != said.plain:
        raise Malformed("the table of contents is not of the size that its annotation says")
    end = said.start - _FRAME_HEADER
    if said.plain_digest is None:
        return read_table(text, CrfsDialect("zstd", end), limits)
    if not said.plain_digest.matches(text):
        raise IntegrityError(
            f"the table of contents is not {said.plain_digest}, which the manifest also names"
        )
    return read_table(text, CrfsDialect("zstd", end, LANDMARKS, PREFETCH), limits)
