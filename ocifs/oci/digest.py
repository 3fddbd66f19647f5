"""Digests: the names of content (image-spec, descriptor.md "Digests").

Rules that hold here: nothing but a `Digest` ever names content or makes a path in the cache, so
that a string from outside is parsed before it is used (CVE-2024-3727). The general grammar lets
unknown algorithms pass, as the specification asks; only a digest that is `verifiable` can be read,
since nothing else can be checked.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, Protocol

from ocifs.errors import Malformed, Unsupported

_GRAMMAR = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<encoded>[a-zA-Z0-9=_-]+)")
_REGISTERED = {"sha256": re.compile(r"[a-f0-9]{64}"), "sha512": re.compile(r"[a-f0-9]{128}")}

MAX_DIGEST_LENGTH = 4096
"""Characters of a digest. Those that can be read have 135 at most. The grammar has no bound: the specification's own example has 202."""


class Hasher(Protocol):
    """What this project uses of a hashlib object."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class Digest(NamedTuple):
    """`algorithm:encoded`.

    Make one with `Digest.parse`; the parts of a `verifiable` one are safe as components of a path.

    A named tuple, whose hash takes no call of Python's: every request looks some up.
    """

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read a digest by the general grammar; raise Malformed for what is none."""
        match = _GRAMMAR.fullmatch(text) if len(text) <= MAX_DIGEST_LENGTH else None
        if match is None:
            raise Malformed(
                f"not a digest: {text[:100]!r}",
                hint="a digest looks like sha256:<64 hexadecimal digits>",
            )
        return cls(match["algorithm"], match["encoded"])

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of some bytes, by a registered algorithm."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @property
    def verifiable(self) -> bool:
        """Whether content can be checked against it: a registered algorithm and a value of its
        shape.
        """
        shape = _REGISTERED.get(self.algorithm)
        return shape is not None and shape.fullmatch(self.encoded) is not None

    @property
    def short(self) -> str:
        """The first twelve characters of the value, for people."""
        return self.encoded[:12]

    def hasher(self) -> Hasher:
        """A fresh hash for content that claims this digest; raise Unsupported where none can be
        had.
        """
        if not self.verifiable:
            raise Unsupported(
                f"content named {self} cannot be verified: no known algorithm or not a value of its shape"
            )
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Whether some bytes are the content that this digest names."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.encoded

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


EMPTY_JSON = Digest.of(b"{}")
"""The digest of the empty descriptor's content (image-spec, manifest.md "Guidance for an Empty Descriptor")."""
