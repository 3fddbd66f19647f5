"""The questions that anyone may ask of the world, as small Protocols, and the values that go with
them.

    Catalog      names, which change: repositories, tags, what a tag means now, what refers to a
    digest BlobSource   bytes by digest, which never change, as streams: what a registry or a layout
    can do BlobReader   the same bytes for those who read: any range, verified and kept. What tree
    and layers see DerivedCache        things made from blobs (indices, merged trees), kept under a digest.
    What layers sees

Rules that hold here: every method raises nothing but `OcifsError`s; NotFound only when somebody who
knows said so; repository names are those of the registry itself, without host; spans are half-open,
in bytes. One suite in tests/conformance runs over every implementation and every wrapper of each
Protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as somebody reaches it: by which repository, of which digest, how many bytes
    (UNKNOWN_SIZE: to be asked).

    `data`: the content itself where the descriptor carried it. `urls`: other places that claim to
    have it.
    """

    repository: str
    digest: Digest
    size: int = UNKNOWN_SIZE
    data: bytes | None = None
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, repository: str, descriptor: Descriptor) -> Blob:
        """The blob that a descriptor of a manifest in this repository points at."""
        return cls(
            repository, descriptor.digest, descriptor.size, descriptor.embedded, descriptor.urls
        )


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest as it was served: its bytes, already verified against `digest`, and the
    Content-Type that came with them.

    `notes`: what is odd about where it comes from, for people.
    """

    digest: Digest
    media_type: str
    body: bytes
    notes: tuple[str, ...] = ()


class Catalog(Protocol):
    """Names, which change."""

    async def repositories(self) -> tuple[str, ...]:
        """Every repository that is listed, sorted.

        A hint: others may exist. Raises CatalogUnavailable where none are listed.
        """
        ...

    async def brief_list(self) -> tuple[str, ...] | None:
        """The same if one request lists them all, else None: for a lookup, which can do without.

        Raises what `repositories` does.
        """
        ...

    async def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, each once, in the registry's order.

        Raises NotFound for an unknown repository.
        """
        ...

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """What a tag means now: media type, digest and size of its manifest. Raises NotFound."""
        ...

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        """The manifest that a tag means now, for whoever wants its bytes at once: `resolve` and
        `manifest` in one. Raises as they do.
        """
        ...

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        """The manifest of that digest, verified. Raises NotFound, IntegrityError, LimitExceeded."""
        ...

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """The manifests whose subject is this digest; empty where there are none (distribution-spec
        "Listing Referrers").
        """
        ...


class BlobStream(Protocol):
    """Bytes of a blob on their way.

    It begins at `start`, which is 0 when the server ignored the range that was asked for.

    `total` is the size of the whole blob as the server gave it, or None. Iterating yields pieces of
    any length in order; an error ends it. The stream ends at the end of the range asked for, or of
    the blob.
    """

    start: int
    total: int | None

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class BlobSource(Protocol):
    """Bytes by digest, unverified, as streams."""

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """The size of a blob, in bytes. Raises NotFound."""
        ...

    def open_blob(
        self, blob: Blob, start: int, stop: int
    ) -> AbstractAsyncContextManager[BlobStream]:
        """Open bytes [start, stop) of a blob.

        Raises NotFound. Leaving the context ends the transfer.
        """
        ...

    def report_corrupt(self, digest: Digest) -> bool:
        """What came for a digest was not what it names.

        Whether it is worth another try: from now on it comes from elsewhere.

        Each True takes a place away, so that whoever asks again after it ends.
        """
        ...


class BlobReader(Protocol):
    """Bytes by digest, for those who read."""

    @property
    def key_scope(self) -> tuple[str, ...]:
        """The end of the keys of files that this reader reads: the host in a tree of several."""
        ...

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """The size of a blob, in bytes. Raises NotFound."""
        ...

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        """Bytes [offset, offset+length), shorter only at the blob's end. `blob.size` must be known.

        Verified against the digest before the last missing byte of a blob is served; kept, so that
        no byte is fetched twice. `toward`: where the reader will go on to without leaving anything
        out, as far as it knows; it may be asked for at once. Raises NotFound, IntegrityError,
        Unreachable and the like.
        """
        ...

    def acquire(self, digest: Digest) -> None:
        """Somebody opened the blob: what is kept of it stays until it is `release` as often as it
        was held.
        """
        ...

    def release(self, digest: Digest) -> None:
        """Somebody who opened the blob closed it."""
        ...


class DerivedCache(Protocol):
    """Things that were made from blobs, kept on disk by a name that says what they are made from.

    Any of them may vanish.

    `kind` is a word with a format version (`layer-index.1`), `key` is a digest that names what it
    was made from.
    """

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        """The thing, open for reading and mmap, or None when it has not been made or was evicted.

        Blocks on disk only.
        """
        ...

    def put(self, kind: str, key: Digest) -> AbstractContextManager[BinaryIO]:
        """A file to write the thing to; kept whole when the block ends, dropped when it raises.

        Blocks on disk only.
        """
        ...


@dataclass(frozen=True, slots=True)
class ContentSource:
    """Where a part of the tree comes from: the names and the bytes of one registry or layout, under
    the name it has for people.
    """

    name: str
    catalog: Catalog
    blobs: BlobReader
