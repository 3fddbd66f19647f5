"""The digests of a plain tar that goes by: of the whole, which is the diff ID, and of each span.

Rules that hold here: blocking, for a worker thread, which is another than the one that inflates:
hashing takes a third of its time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ocifs.layers.spans.span import TAKEN
from ocifs.oci.digest import Digest


class StreamDigests:
    """Takes the sums of pieces, of which an empty one ends a span.

    `spans`: what is kept of the SHA-256 of each, TAKEN bytes, one after the other.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._whole = hashlib.new(algorithm)
        self.spans = bytearray()

    def taken(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces without the empty ones."""
        span = hashlib.sha256()
        for piece in pieces:
            if piece:
                self._whole.update(piece)
                span.update(piece)
                yield piece
            else:
                self.spans += span.digest()[:TAKEN]
                span = hashlib.sha256()

    @property
    def diff_id(self) -> Digest:
        """The digest of all that was taken."""
        return Digest(self._algorithm, self._whole.hexdigest())
