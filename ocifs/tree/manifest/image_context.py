"""The context of an image, for lazy layer formats with tables of contents outside its layers."""

from __future__ import annotations

from functools import partial

from ocifs.layers.toc import soci
from ocifs.layers.toc.protocol import ImageContext
from ocifs.oci.manifest import Manifest
from ocifs.tree.manifest.load import ManifestLocation


def image_context(location: ManifestLocation, image: Manifest) -> ImageContext:
    """Return the context of an image of this location."""
    context = location.context
    return ImageContext(
        context.origin.catalog,
        location.repository,
        image,
        partial(context.tags_of, location.repository, image.digest),
        enabled=frozenset({soci.NAME} if context.view.soci else ()),
    )
