"""The layer of an image, as the layer service identifies it.

Rules:

- Pure values. Two layers with one key have the same index: the same entries in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ocifs.content import Blob
from ocifs.errors import IntegrityError
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.toc.protocol import ImageContext, TocRef
from ocifs.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its blob, with a known size, and the diff ID if the config contains one.

    `toc`: the table of contents to use instead of the tar. `image`: where its format looks for
    tables outside the layer.
    """

    blob: Blob
    diff_id: Digest | None = None
    toc: TocRef | None = None
    image: ImageContext | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> Digest:
        """The key of the layer's index."""
        return self.blob.digest if self.toc is None else self.toc.key(self.blob)

    def without_toc(self) -> Layer:
        """The same layer, to be indexed as an ordinary tar."""
        return replace(self, toc=None)


def check_diff_id(layer: Layer, index: LayerIndex) -> None:
    """Compare the index with the layer's diff ID, if both have the same algorithm.

    Raises IntegrityError.
    """
    expected = layer.diff_id
    if (
        expected is not None
        and index.diff_id is not None
        and expected.algorithm == index.diff_id.algorithm
        and expected != index.diff_id
    ):
        raise IntegrityError(
            f"layer {layer.blob.digest} has the diff ID {index.diff_id},"
            f" its image's config has {expected}"
        )
