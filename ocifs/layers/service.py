"""The layer service: file trees from layers, and the content of their files.

One layer service exists for each origin of a mount. The nodes of the tree and the housekeeper call
it on the event loop:

    layer, locate_tocs     identify a layer, and the table of contents to use for it
    tree                   merge layers into a tree (trees.py)
    index                  list one layer (indexes.py)
    erofs_image            the tree as an image that the kernel can mount (images.py)
    read, read_nowait      read a file (reading.py)
    root_attributes        attributes of the roots of earlier mounts' trees

The first listing of a tree streams each of its layers once. A worker thread decompresses the layer,
another hashes it and lists its entries. The resulting index contains the entries, and spans to
decompress parts of the blob later. A lazy layer has a table of contents, which replaces the pass
over the layer (toc/). Indexes, merged trees and root attributes are saved in the derived cache by
digest, so that later mounts list layers without reading them.

The service holds in memory: indexes and trees while a node uses them, decoded spans up to a fixed
size, and which layers are open.

Rules:

- A layer is indexed by one pass at a time, for any number of callers.
- Nothing of an ordinary layer is shown before the whole layer was read and verified once. Content
  that is fetched later is verified by the checksums of its spans.
- Blobs are read only through the BlobReader, and files written only through the DerivedCache.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import BinaryIO

import trio
from cachetools import LRUCache

from ocifs.content import Blob, BlobReader, DerivedCache
from ocifs.errors import Malformed
from ocifs.layers.data_files import DataFiles
from ocifs.layers.erofs.writer import ImageOptions
from ocifs.layers.images import ErofsImage, ErofsImages
from ocifs.layers.index.entry import LayerEntry, LayerIndex
from ocifs.layers.indexes import LayerIndexes
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.root_attributes import RootAttributesCache
from ocifs.layers.merge.tree import MergedTree
from ocifs.layers.reading import LayerReader
from ocifs.layers.toc.formats import FORMATS, TocFormats
from ocifs.layers.toc.protocol import ImageContext, TocFormat, TocRef
from ocifs.layers.trees import MergedTrees
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

log = logging.getLogger("ocifs.layers")

_WARNED = 1000  # layers in memory


class LayerService:
    """Makes trees of the layers that a BlobReader reads, and caches them in a DerivedCache."""

    def __init__(
        self,
        blobs: BlobReader,
        derived: DerivedCache,
        nursery: trio.Nursery,
        limits: Limits,
        *,
        formats: Sequence[TocFormat] = FORMATS,
    ) -> None:
        """`formats`: the lazy formats to use. Without any, each layer is read as a whole first."""
        self.blobs = blobs
        self.root_attributes = RootAttributesCache(derived)
        self._formats = TocFormats(formats)
        self._indexes = LayerIndexes(blobs, derived, nursery, limits, self._formats)
        self._trees = MergedTrees(self._indexes, derived, nursery, limits)
        self._images = ErofsImages(self._trees, derived, nursery, limits)
        self._reader = LayerReader(self._indexes, blobs, derived, nursery, limits)
        self._data_files = DataFiles(derived)
        self._warned: LRUCache[Digest, bool] = LRUCache(_WARNED)

    def layer(
        self,
        blob: Blob,
        diff_id: Digest | None,
        annotations: Mapping[str, str],
        located: TocRef | None = None,
        image: ImageContext | None = None,
    ) -> Layer:
        """Identify a layer by its descriptor and its image's config.

        `located`: what `locate_tocs` returned for it, used if no annotation names a table of
        contents.
        """
        try:
            toc = self._formats.ref(annotations) or located
        except Malformed as error:
            self._warn(blob, error)
            toc = None
        return Layer(blob, diff_id, toc, image)

    async def locate_tocs(self, image: ImageContext | None) -> Mapping[Digest, TocRef]:
        """Find the tables of contents of enabled opt-in formats, by the digests of the layers."""
        return {} if image is None else await self._formats.locate(image)

    async def index(self, layer: Layer) -> LayerIndex:
        """Return the entries and spans of a layer.

        Raises Malformed, IntegrityError, LimitExceeded and the errors of reading the blob.
        """
        return await self._indexes.get(layer)

    async def tree(
        self, layers: Sequence[Layer], *, markers: bool = True, alone: bool = False
    ) -> MergedTree:
        """Return the merged tree of layers, lowest first. `markers` and `alone`: as for `merge`."""
        return await self._trees.get(layers, markers=markers, alone=alone)

    async def erofs_image(self, layers: Sequence[Layer], options: ImageOptions) -> ErofsImage:
        """Open the EROFS image of the merged tree of layers, lowest first; write it if necessary.

        The caller closes it. Raises the errors of `tree`, LimitExceeded, CacheFull, CacheFailed.
        """
        return await self._images.get(layers, options)

    async def read(self, layer: Layer, entry: LayerEntry, offset: int, size: int) -> bytes:
        """Read bytes [offset, offset+size) of a file, fewer only at its end."""
        return await self._reader.read(layer, entry, offset, size)

    def read_nowait(self, layer: Layer, entry: LayerEntry, offset: int, size: int) -> bytes | None:
        """Return the same bytes if they are in memory, else None."""
        return self._reader.read_nowait(layer, entry, offset, size)

    def readahead_nowait(self, layer: Layer, entry: LayerEntry) -> bytes | None:
        """Return a whole file from memory if it follows files that were read sequentially."""
        return self._reader.readahead_nowait(layer, entry)

    async def erofs_data(
        self, image: Digest, size: int, read: Callable[[int, int], Awaitable[bytes]]
    ) -> BinaryIO:
        """Open the file of all data of an EROFS image; write it with `read` if necessary.

        The caller closes it. Raises the errors of `read`, CacheFull, CacheFailed.
        """
        return await self._data_files.get(image, size, read)

    def acquire(self, layer: Layer) -> None:
        """Keep the layer's data open: a file of the layer was opened."""
        self._reader.acquire(layer)

    def release(self, layer: Layer) -> None:
        """Undo one `acquire`: a file of the layer was closed."""
        self._reader.release(layer)

    def close_idle(self, idle: float) -> None:
        """Close files that are not in use and were not read for `idle` seconds."""
        self._reader.close_idle(idle)

    def _warn(self, blob: Blob, error: Malformed) -> None:
        """Log once for a layer that its table of contents is ignored."""
        if blob.digest not in self._warned:
            self._warned[blob.digest] = True
            log.warning(
                "ignored the table of contents of layer %s of %s: %s",
                blob.digest,
                blob.repository,
                error,
            )
