"""Digests: the names of content (image-spec, descriptor.md "Digests").

Rules that hold here:

- Content and paths in the cache are named by a `Digest` only. External strings are therefore
  parsed before they are used (CVE-2024-3727).
- The general grammar accepts unknown algorithms, as the specification requires.
- Only content with a `verifiable` digest is read.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, Protocol

from ocifs.errors import Malformed, Unsupported

_GRAMMAR = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<encoded>[a-zA-Z0-9=_-]+)")
# The specification does not allow capital letters (descriptor.md, "Registered Algorithms").
_REGISTERED = {"sha256": re.compile(r"[a-f0-9]{64}"), "sha512": re.compile(r"[a-f0-9]{128}")}

MAX_DIGEST_LENGTH = 4096
"""Characters of a digest. The grammar has no bound; verifiable digests have at most 135."""


class Hasher(Protocol):
    """The part of a hashlib object that ocifs uses."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Hasher: ...


class Digest(NamedTuple):
    """`algorithm:encoded`, made by `Digest.parse`.

    Both parts of a `verifiable` digest are safe as path components.

    It is a named tuple because a tuple is hashed in C, and every request looks up digests.
    """

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse a digest by the general grammar. Raises Malformed."""
        match = _GRAMMAR.fullmatch(text) if len(text) <= MAX_DIGEST_LENGTH else None
        if match is None:
            raise Malformed(
                f"not a digest: {text[:100]!r}",
                hint="a digest looks like sha256:<64 hexadecimal digits>",
            )
        return cls(match["algorithm"], match["encoded"])

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `data` by a registered algorithm."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @property
    def verifiable(self) -> bool:
        """Whether content can be verified: the algorithm is registered and the value is valid."""
        pattern = _REGISTERED.get(self.algorithm)
        return pattern is not None and pattern.fullmatch(self.encoded) is not None

    @property
    def short(self) -> str:
        """The first twelve characters of the value, for display."""
        return self.encoded[:12]

    def hasher(self) -> Hasher:
        """A new hash object of this algorithm. Raises Unsupported."""
        if not self.verifiable:
            raise Unsupported(
                f"cannot verify {self}: unknown algorithm, or invalid value for the algorithm"
            )
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Whether this is the digest of `data`."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.encoded

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


EMPTY_JSON = Digest.of(b"{}")
"""The digest of `{}`, the content of the empty descriptor (image-spec, manifest.md)."""
