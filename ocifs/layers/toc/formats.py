"""The lazy layer formats in use, and the selection of one for each layer.

The layer service and the tree use lazy formats only through `TocFormats`. A new format is one
module with a `TocFormat`, and its line in `FORMATS` (docs/how-to/extend.md).

Tasks of a mount call this on the event loop.

Rules:

- A TOC is used only if a verified manifest names its digest, or if the user has enabled its format.
- TOCs outside a layer are located only when they are needed.
- A TOC that is invalid or exceeds a limit is logged, and the layer is indexed as an ordinary tar.
- An outage is an error, never a reason to ignore a TOC.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ocifs.errors import LimitExceeded, Malformed, Unsupported
from ocifs.layers.toc.estargz import Estargz
from ocifs.layers.toc.protocol import ImageContext, Toc, TocFormat, TocRef, TocSource
from ocifs.layers.toc.soci import Soci
from ocifs.layers.toc.zstd_chunked import ZstdChunked
from ocifs.oci.digest import Digest

log = logging.getLogger(__name__)

# In order of preference. A zstd:chunked layer can also have the annotation of eStargz.
FORMATS: Final[tuple[TocFormat, ...]] = (
    ZstdChunked(),
    Estargz(),
    Soci(),
)


@dataclass(frozen=True, slots=True)
class TocFormats:
    """A selection of formats, in order of preference."""

    formats: Sequence[TocFormat] = FORMATS

    def ref(self, annotations: Mapping[str, str]) -> TocRef | None:
        """Return the reference in a layer's annotations, or None. Raises Malformed."""
        for toc_format in self.formats:
            ref = toc_format.ref(annotations)
            if ref is not None:
                return ref
        return None

    async def locate(self, image: ImageContext) -> dict[Digest, TocRef]:
        """Find the TOCs of the enabled opt-in formats, by the digests of their layers."""
        refs: dict[Digest, TocRef] = {}
        for toc_format in self.formats:
            if toc_format.opt_in and toc_format.name in image.enabled:
                for layer, blob in (await toc_format.locate(image)).items():
                    refs.setdefault(layer, TocRef(toc_format.name, blob.digest, blob=blob))
        return refs

    async def fetch(self, source: TocSource) -> Toc | None:
        """Return the verified TOC of a layer, or None if it must not be used.

        Raises the errors of reading the blob.
        """
        try:
            return await self._named(source.ref.format).fetch(source)
        except (Malformed, LimitExceeded, Unsupported) as error:
            log.warning(
                "layer %s of %s is read as an ordinary tar: %s",
                source.layer.digest,
                source.layer.repository or "the image",
                error,
            )
            return None

    def has_tar_positions(self, name: str) -> bool:
        """Whether indexes that record this format or compression use positions in the tar."""
        return any(
            toc_format.tar_positions for toc_format in self.formats if toc_format.name == name
        )

    def _named(self, name: str) -> TocFormat:
        for toc_format in self.formats:
            if toc_format.name == name:
                return toc_format
        raise Unsupported(f"unknown format of a table of contents: {name}")
