"""SOCI: indexes of ordinary gzip layers, stored beside the image (soci-snapshotter).

    SOCI index     a manifest with one zTOC for each large layer
    zTOC           the entries of a layer, and checkpoints of its gzip stream (ztoc.py)

The image names its index in an annotation (version 2), or the index refers to the image
(version 1). An index can be attached with push access alone, so SOCI is used only if it is enabled.

Rules:

- The registry is not queried before a layer is opened.
- An invalid index is logged and ignored. An outage is an error: a tree must not depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from ocifs.concurrency import in_thread, off_loop
from ocifs.content import Blob
from ocifs.errors import IntegrityError, Malformed, NotFound
from ocifs.layers.toc.protocol import ImageContext, Toc, TocRef, TocSource
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Manifest, parse_manifest
from ocifs.oci.mediatype import essence

log = logging.getLogger(__name__)

NAME = "soci"
REFERRING = "application/vnd.amazon.soci.index.v1+json"
NAMED = "application/vnd.amazon.soci.index.v2+json"
TABLE = "application/octet-stream"
INDEX_DIGEST = "com.amazon.soci.index-digest"
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"


class Soci:
    """The format of SOCI's zTOCs."""

    name = NAME
    tar_positions = True
    opt_in = True

    def ref(self, annotations: Mapping[str, str]) -> TocRef | None:
        """Return None: layers do not name their zTOCs."""
        return None

    async def locate(self, image: ImageContext) -> Mapping[Digest, Blob]:
        """Find the zTOCs of an image's layers."""
        index = await _find_index(image)
        return {} if index is None else _tables(image.repository, index)

    async def fetch(self, source: TocSource) -> Toc:
        """Fetch and parse a zTOC; its digest is verified by the BlobReader."""
        if source.ref.blob is None:
            raise Malformed("the layer's zTOC was not located")
        data = await source.read_blob(source.ref.blob)
        # Imports FlatBuffers, and NumPy if it is installed: 0.2 s, and a thread for each processor.
        from ocifs.layers.toc.ztoc import read_ztoc

        return await in_thread(read_ztoc, data, source.layer.size, source.limits)


async def _find_index(image: ImageContext) -> Manifest | None:
    """Find the index that the image names, or else the first one by digest that refers to it."""
    named, subject = image.manifest.annotations.get(INDEX_DIGEST), image.manifest.digest
    try:
        if named is not None:
            return await _load_index(image, Digest.parse(named), NAMED)
        referrers = await image.catalog.referrers(image.repository, subject)
        # The order of referrers is not specified, and each mount must choose the same index.
        for digest in sorted(
            referrer.digest for referrer in referrers if referrer.artifact_type == REFERRING
        ):
            index = await _load_index(image, digest, REFERRING)
            if index is not None and index.subject is not None and index.subject.digest == subject:
                return index
    except (NotFound, Malformed, IntegrityError) as error:
        log.warning("ignored the SOCI index of %s: %s", subject, error)
    return None


async def _load_index(image: ImageContext, digest: Digest, artifact_type: str) -> Manifest | None:
    raw = await image.catalog.manifest(image.repository, digest)
    parse = partial(parse_manifest, raw.body, raw.digest, raw.media_type)
    index = await off_loop(len(raw.body), parse)
    actual = index.artifact_type or (index.config.media_type if index.config is not None else "")
    if actual != artifact_type:
        log.warning("%s is not a SOCI index of type %s: %r", digest, artifact_type, actual)
        return None
    return index


def _tables(repository: str, index: Manifest) -> dict[Digest, Blob]:
    """Return the zTOCs of an index, by the digests of layers.

    Lists of files to prefetch name layers with the same annotation, but have another media type.
    """
    tables: dict[Digest, Blob] = {}
    for table in index.layers:
        layer = table.annotations.get(LAYER_DIGEST)
        if layer is None or essence(table.media_type) != TABLE:
            continue
        try:
            tables[Digest.parse(layer)] = Blob.of(repository, table)
        except Malformed as error:
            log.warning("ignored a table of the SOCI index %s: %s", index.digest, error)
    return tables
