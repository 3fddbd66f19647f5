"""The interface between the layer service and the lazy layer formats.

A lazy format is a layer format with a table of contents (TOC): a list of the layer's files and of
the byte ranges that contain them. With a verified TOC a layer is listed and read without being
fetched as a whole. `formats.py` lists the formats that are used.

For each layer the layer service

1. creates a `TocRef` from the annotations of the layer's descriptor (`TocFormat.ref`), or, for a
   format that the user has enabled, from a blob beside the image (`TocFormat.locate`),
2. looks up the index in the cache, under `TocRef.key`,
3. fetches and parses the TOC otherwise (`TocFormat.fetch`), and caches the resulting index.

Rules:

- `ref` is pure and fast: it runs on the event loop for each layer that is shown.
- `fetch` verifies the TOC against the digest in its reference before it parses it, and parses in a
  worker thread.
- `fetch` raises Malformed or LimitExceeded for a TOC that must not be used. The layer is then
  indexed as an ordinary tar. Other errors, such as an unreachable registry, reach the reader.
- Each span of a TOC has a checksum that the TOC's digest covers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ocifs.content import Blob, BlobReader, Catalog
from ocifs.errors import IntegrityError, LimitExceeded, Malformed
from ocifs.layers.index.entry import LayerEntry
from ocifs.layers.spans.span import SpanMap
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Manifest
from ocifs.settings import Limits


@dataclass(frozen=True, slots=True)
class Toc:
    """A table of contents: the entries, and the spans that contain their content.

    `size`: of all content together. `prefetch`: the number of bytes at the start of the blob that
    the image's author marked as read first, or 0.
    """

    entries: tuple[LayerEntry, ...]
    spans: SpanMap
    size: int
    prefetch: int = 0


@dataclass(frozen=True, slots=True)
class TocRef:
    """A reference to the TOC of a layer: the name of its format, and its digest.

    `details`: everything else that identifies the parsed TOC, as text. `blob`: the TOC itself, if
    it is a blob beside the image.
    """

    format: str
    digest: Digest
    details: str = ""
    blob: Blob | None = None

    def key(self, layer: Blob) -> Digest:
        """The cache key of the layer's index: another manifest may name another TOC for it."""
        return Digest.of(f"{layer.digest} {self.format} {self.digest} {self.details}".encode())


@dataclass(frozen=True, slots=True)
class ImageContext:
    """The image that a layer belongs to, for formats with TOCs outside the layers.

    `tags`: returns the tags that led to the image. `enabled`: the names of the opt-in formats that
    the user has enabled.
    """

    catalog: Catalog
    repository: str
    manifest: Manifest
    tags: Callable[[], Sequence[str]]
    enabled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TocSource:
    """Where `TocFormat.fetch` reads from: a layer and the reference to its TOC."""

    blobs: BlobReader
    layer: Blob
    ref: TocRef
    limits: Limits
    image: ImageContext | None = None

    async def read(self, start: int, length: int) -> bytes:
        """Read bytes [start, start+length) of the layer's blob."""
        return await self._read(self.layer, start, length)

    async def read_blob(self, blob: Blob) -> bytes:
        """Read a whole blob that contains a TOC. Raises LimitExceeded if it is too large."""
        self.check_size(blob.size)
        return await self._read(blob, 0, blob.size)

    def check_size(self, size: int) -> None:
        """Raise LimitExceeded or Malformed if a TOC of this size must not be read."""
        if size < 0:
            raise Malformed("the table of contents has a descriptor without a size")
        if size > self.limits.toc_bytes:
            raise LimitExceeded(
                f"the table of contents has more than limits.toc_bytes ({self.limits.toc_bytes})"
            )

    async def _read(self, blob: Blob, start: int, length: int) -> bytes:
        data = await self.blobs.read_blob(blob, start, length)
        if len(data) != length:
            raise IntegrityError(f"{blob.digest} is shorter than the size in its descriptor")
        return data


class TocFormat(Protocol):
    """A lazy layer format.

    `name`: recorded in the index of a layer, and part of its cache key. `tar_positions`: the
    extents of the entries are positions in the layer's uncompressed tar, so that a damaged span can
    be read from the tar instead. `opt_in`: the format is used only if the user has enabled it,
    since its TOCs are not covered by the image's digest.
    """

    @property
    def name(self) -> str: ...
    @property
    def tar_positions(self) -> bool: ...
    @property
    def opt_in(self) -> bool: ...

    def ref(self, annotations: Mapping[str, str]) -> TocRef | None:
        """Return the reference in a layer's annotations, or None. Raises Malformed."""
        ...

    async def locate(self, image: ImageContext) -> Mapping[Digest, Blob]:
        """Find TOCs that are blobs outside the image, by the digests of their layers.

        Raises an error only if the registry cannot be reached: a tree must not depend on outages.
        """
        ...

    async def fetch(self, source: TocSource) -> Toc:
        """Fetch, verify and parse the TOC. Raises Malformed, LimitExceeded and read errors."""
        ...
