"""SOCI's tables of contents of an image's layers: found by the image's annotation (its second
index), or as a referrer (its first).

Rules that hold here: nothing is asked unless the user wants it, and before a layer is looked into;
what makes no sense is left alone, and an outage is not: a tree must not differ by it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from ocifs.concurrency import off_loop
from ocifs.content import Blob
from ocifs.errors import IntegrityError, Malformed, NotFound
from ocifs.layers.toc.formats import TocFinder
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Manifest, parse_manifest
from ocifs.oci.mediatype import essence
from ocifs.tree.manifest.load import ManifestLocation

log = logging.getLogger(__name__)

REFERRING = "application/vnd.amazon.soci.index.v1+json"
NAMED = "application/vnd.amazon.soci.index.v2+json"
TABLE = "application/octet-stream"
INDEX_DIGEST = "com.amazon.soci.index-digest"
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"


def soci_tables(location: ManifestLocation, image: Manifest) -> TocFinder | None:
    """Who asks for the tables of an image's layers, by the layers' digests; None where nobody wants
    them.
    """
    if not location.context.view.soci:
        return None

    async def ask() -> Mapping[Digest, Blob]:
        index = await _index(location, image)
        return {} if index is None else dict(_tables(location.repository, index))

    return ask


async def _index(location: ManifestLocation, image: Manifest) -> Manifest | None:
    """The index that the image itself names; else the first in the order of digests that refers to
    it.
    """
    named = image.annotations.get(INDEX_DIGEST)
    try:
        if named is not None:
            return await _load(location, Digest.parse(named), NAMED)
        listed = await location.context.origin.catalog.referrers(location.repository, image.digest)
        for digest in sorted(each.digest for each in listed if each.artifact_type == REFERRING):
            index = await _load(location, digest, REFERRING)
            if (
                index is not None
                and index.subject is not None
                and index.subject.digest == image.digest
            ):
                return index
    except (NotFound, Malformed, IntegrityError) as error:
        log.warning("SOCI's index of %s is left alone: %s", image.digest, error)
    return None


async def _load(location: ManifestLocation, digest: Digest, kind: str) -> Manifest | None:
    raw = await location.context.origin.catalog.manifest(location.repository, digest)
    parse = partial(parse_manifest, raw.body, raw.digest, raw.media_type)
    index = await off_loop(len(raw.body), parse)
    own = index.artifact_type or (index.config.media_type if index.config is not None else "")
    if own != kind:
        log.warning("%s is no SOCI index of the kind that is asked for, but %r", digest, own)
        return None
    return index


def _tables(repository: str, index: Manifest) -> list[tuple[Digest, Blob]]:
    """The tables of an index.

    Lists of files to prefetch, which name layers in the same way, have a type of their own.
    """
    found = []
    for table in index.layers:
        of = table.annotations.get(LAYER_DIGEST)
        if of is None or essence(table.media_type) != TABLE:
            continue
        try:
            found.append((Digest.parse(of), Blob.of(repository, table)))
        except Malformed as error:
            log.warning("a table of SOCI's index %s is left alone: %s", index.digest, error)
    return found
