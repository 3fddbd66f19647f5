"""zstd:chunked: a zstd layer of many frames, with a table of contents (containers/storage,
pkg/chunked).

    frame … frame       the tar; each chunk of a file's content is a frame
    skippable frame     the TOC: zstd-compressed JSON
    skippable frames    data to rebuild the tar's headers, and a footer; ocifs uses neither

The annotations of the layer's descriptor contain the position of the TOC and the digest of its
compressed bytes. The manifest's verified digest covers them. Podman 4 and older use the prefix
`io.containers`, later versions `io.github.containers`. Layers of stargz-snapshotter and nerdctl
also have the annotation of eStargz, with the digest of the uncompressed JSON. Then both digests
must match, and the landmarks of eStargz are hidden.

Rules:

- The TOC is not decompressed before its digest is verified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ocifs.concurrency import in_thread
from ocifs.content import Blob
from ocifs.errors import IntegrityError, LimitExceeded, Malformed
from ocifs.layers import zstd
from ocifs.layers.toc.crfs import CrfsDialect, read_table
from ocifs.layers.toc.estargz import ANNOTATION as ESTARGZ
from ocifs.layers.toc.estargz import LANDMARKS, PREFETCH
from ocifs.layers.toc.protocol import ImageContext, Toc, TocRef, TocSource
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

_PREFIXES = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
_CHECKSUM, _POSITION = "manifest-checksum", "manifest-position"
# Numbers of 18 digits always fit into 63 bits.
_POSITION_VALUE = re.compile(r"([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18})")
_FRAME_HEADER = 8  # of the skippable frame around the TOC (RFC 8878, 3.1.2)
_CRFS = "1"  # the only defined type of TOC


class ZstdChunked:
    """The format of zstd:chunked layers."""

    name = "zstd:chunked"
    tar_positions = False
    opt_in = False

    def ref(self, annotations: Mapping[str, str]) -> TocRef | None:
        """Return the reference in a layer's annotations, or None. Raises Malformed."""
        for prefix in _PREFIXES:
            if prefix + _CHECKSUM not in annotations:
                continue
            match = _POSITION_VALUE.fullmatch(annotations.get(prefix + _POSITION, ""))
            if match is None or match[4] != _CRFS:
                raise Malformed(f"the annotation {prefix + _POSITION} has an unknown value")
            digest, named = Digest.parse(annotations[prefix + _CHECKSUM]), annotations.get(ESTARGZ)
            json_digest = None if named is None else Digest.parse(named)
            position = TocPosition(int(match[1]), int(match[2]), int(match[3]), json_digest)
            return TocRef(self.name, digest, position.details)
        return None

    async def locate(self, image: ImageContext) -> Mapping[Digest, Blob]:
        """Return nothing: the TOC is always in the layer."""
        return {}

    async def fetch(self, source: TocSource) -> Toc:
        """Fetch the TOC from the position in its reference."""
        position = TocPosition.parse(source.ref.details)
        position.check(source.layer.size, source.limits)
        data = await source.read(position.start, position.length)
        return await in_thread(read, data, source.ref.digest, position, source.limits)


@dataclass(frozen=True, slots=True)
class TocPosition:
    """Bytes [start, start+length) of the blob, which decompress to `size` bytes of JSON.

    `json_digest`: the digest of the JSON, from the annotation of eStargz.
    """

    start: int
    length: int
    size: int
    json_digest: Digest | None = None

    @property
    def details(self) -> str:
        """The position as text, for a TocRef."""
        return f"{self.start}:{self.length}:{self.size} {self.json_digest or ''}".rstrip()

    @classmethod
    def parse(cls, details: str) -> TocPosition:
        """Return the position that `details` gave."""
        numbers, _, json_digest = details.partition(" ")
        start, length, size = map(int, numbers.split(":"))
        return cls(start, length, size, Digest.parse(json_digest) if json_digest else None)

    def check(self, blob_size: int, limits: Limits) -> None:
        """Raise Malformed or LimitExceeded if no TOC can be read from a blob of that size."""
        if not (
            _FRAME_HEADER <= self.start < blob_size and 0 < self.length <= blob_size - self.start
        ):
            raise Malformed("the position of the table of contents is outside the layer")
        if max(self.length, self.size) > limits.toc_bytes:
            raise LimitExceeded(
                f"the table of contents has more than limits.toc_bytes ({limits.toc_bytes})"
            )


def read(compressed: bytes, digest: Digest, position: TocPosition, limits: Limits) -> Toc:
    """Parse a compressed TOC. Raises Malformed, IntegrityError and LimitExceeded."""
    if not digest.matches(compressed):
        raise IntegrityError(f"the table of contents does not have the digest {digest}")
    try:
        # One byte more reveals a longer TOC, without decompressing all of it.
        text = zstd.first_of(compressed, position.size + 1, limits.layer_window)
    except zstd.ZstdError as error:
        raise Malformed(f"the table of contents has invalid zstd data: {error}") from None
    if len(text) != position.size:
        raise Malformed("the table of contents does not have the size in its annotation")
    end = position.start - _FRAME_HEADER
    if position.json_digest is None:
        return read_table(text, CrfsDialect("zstd", end), limits)
    if not position.json_digest.matches(text):
        raise IntegrityError(
            f"the table of contents does not have the digest {position.json_digest}"
            " in the annotation of eStargz"
        )
    return read_table(text, CrfsDialect("zstd", end, LANDMARKS, PREFETCH), limits)
