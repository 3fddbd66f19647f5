"""eStargz' tables of contents that lie apart from their layers: in an image of its own, whose tag
is the image's with `-esgztoc` behind it (stargz-snapshotter, docs/smaller-estargz.md).

Rules that hold here: the tag is the only way there, so that an image that was reached by a digest
which no tag of this mount led to has no such tables; nothing of what is found is believed: it leads
to bytes that must have the digest that the image's manifest names; what makes no sense is left
alone, and an outage is not: a tree must not differ by it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from ocifs.concurrency import off_loop
from ocifs.content import Blob
from ocifs.errors import Malformed, NotFound
from ocifs.layers.toc.formats import TocFinder
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Manifest, parse_manifest
from ocifs.tree.manifest.load import ManifestLocation

log = logging.getLogger(__name__)

SUFFIX = "-esgztoc"
LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"


def external_toc_tables(location: ManifestLocation, image: Manifest) -> TocFinder:
    """Who asks for the tables of an image's layers, by the layers' digests."""

    async def ask() -> Mapping[Digest, Blob]:
        found: dict[Digest, Blob] = {}
        for tag in location.context.tags_of(location.repository, image.digest):
            try:
                raw = await location.context.origin.catalog.tagged(
                    location.repository, tag + SUFFIX
                )
                parse = partial(parse_manifest, raw.body, raw.digest, raw.media_type)
                for table in (await off_loop(len(raw.body), parse)).layers:
                    if LAYER_DIGEST in table.annotations:
                        of = Digest.parse(table.annotations[LAYER_DIGEST])
                        found.setdefault(of, Blob.of(location.repository, table))
            except NotFound:
                continue
            except Malformed as error:
                log.warning("%s%s is left alone: %s", tag, SUFFIX, error)
        return found

    return ask
