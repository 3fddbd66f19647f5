"""Hashes an uncompressed tar while it is read: the whole for the diff ID, and each span.

Blocking, for a worker thread other than the decompressing one: hashing takes a third of the time of
decompression.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ocifs.layers.spans.span import TAKEN
from ocifs.oci.digest import Digest


class StreamDigests:
    """Hashes pieces, of which an empty one ends a span.

    `checksums`: the first TAKEN bytes of the SHA-256 of each span, concatenated.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._whole = hashlib.new(algorithm)
        self.checksums = bytearray()

    def hashed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces that are not empty, after hashing them."""
        span = hashlib.sha256()
        for piece in pieces:
            if piece:
                self._whole.update(piece)
                span.update(piece)
                yield piece
            else:
                self.checksums += span.digest()[:TAKEN]
                span = hashlib.sha256()

    @property
    def diff_id(self) -> Digest:
        """The digest of all pieces."""
        return Digest(self._algorithm, self._whole.hexdigest())
