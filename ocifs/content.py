"""The interfaces between the rooms, as small Protocols, and the values that go with them.

    Catalog        names, which change: repositories, tags, the meaning of a tag, referrers
    BlobSource     bytes by digest as streams, unverified: implemented by registries and layouts
    BlobReader     ranges of the same bytes, verified and cached: used by the tree and the layers
    DerivedCache   data derived from blobs (indexes, merged trees), cached by digest: used by layers

They are used in the event loop, except a DerivedCache, which blocks and is used in worker threads.

- Every method raises only `OcifsError`s.
- NotFound is raised only if the registry itself reported it, never because it cannot be reached.
- Repository names are those of the registry itself, without a host.
- Spans are half-open, and in bytes.

One suite of tests runs over every implementation and every wrapper (tests/conformance).
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
    """A blob, and how to reach it.

    - `repository`: the repository through which it is read.
    - `size`: in bytes, or UNKNOWN_SIZE if the registry must be asked.
    - `data`: the content, if the descriptor contained it.
    - `urls`: other places that may have it.
    """

    repository: str
    digest: Digest
    size: int = UNKNOWN_SIZE
    data: bytes | None = None
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, repository: str, descriptor: Descriptor) -> Blob:
        """The blob of a descriptor in a manifest of this repository."""
        return cls(
            repository, descriptor.digest, descriptor.size, descriptor.embedded, descriptor.urls
        )


@dataclass(frozen=True, slots=True)
class RawManifest:
    """The bytes of a manifest, verified against `digest`, with the Content-Type of the answer.

    `notes` describe oddities of its source, for users.
    """

    digest: Digest
    media_type: str
    body: bytes
    notes: tuple[str, ...] = ()


class Catalog(Protocol):
    """Names, which change."""

    async def repositories(self) -> tuple[str, ...]:
        """All repositories that are listed, sorted. Others may exist.

        Raises CatalogUnavailable if none are listed.
        """
        ...

    async def brief_list(self) -> tuple[str, ...] | None:
        """The same if one request lists them all, or None. For a lookup, which can do without.

        Raises the errors of `repositories`.
        """
        ...

    async def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, each once, in the registry's order. Raises NotFound."""
        ...

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """The descriptor of the manifest that a tag refers to now. Raises NotFound."""
        ...

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        """`resolve` and `manifest` in one request. Raises the errors of both."""
        ...

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        """A manifest, verified. Raises NotFound, IntegrityError, LimitExceeded."""
        ...

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """The manifests with this digest as their subject (distribution-spec "Listing Referrers").

        Empty if there are none.
        """
        ...


class BlobStream(Protocol):
    """Bytes of a blob, while they arrive.

    - `start`: the offset of the first byte. It is 0 if the server ignored the range.
    - `stop`: the offset of the end, or None if the server did not report it.
    - `total`: the size of the whole blob that the server reported, or None.

    Iteration yields pieces of any length, in order. It ends at the end of the range or of the blob,
    or with an error.
    """

    start: int
    stop: int | None
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
        """Open bytes [start, stop) of a blob. Raises NotFound.

        The transfer ends when the context is left.
        """
        ...

    def report_corrupt(self, digest: Digest) -> bool:
        """The content received for a digest was corrupt; True if it may be fetched elsewhere.

        Each True excludes one endpoint, so a caller that fetches again ends.
        """
        ...

    def is_strained(self) -> bool:
        """Whether the source limits requests, so a caller should have one transfer at a time."""
        ...


class BlobReader(Protocol):
    """Bytes by digest, verified and cached."""

    @property
    def key_scope(self) -> tuple[str, ...]:
        """The end of the keys of files that this reader reads: the host in a tree of several."""
        ...

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """The size of a blob, in bytes. Raises NotFound."""
        ...

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        """Bytes [offset, offset+length), fewer only at the end of the blob. Its size must be known.

        The whole is verified before the last missing byte is returned, and cached, so that no byte
        is fetched twice. `toward` is the offset up to which the caller expects to read without
        gaps; bytes up to there may be fetched ahead. Raises NotFound, IntegrityError, Unreachable
        and others.
        """
        ...

    def acquire(self, digest: Digest) -> None:
        """A program opened the blob: keep it cached until the matching `release`."""
        ...

    def release(self, digest: Digest) -> None:
        """A program closed the blob."""
        ...


class DerivedCache(Protocol):
    """Data derived from blobs, cached on disk. Any of it may vanish.

    `kind` is a word with a format version (`layer-index.1`). `key` is the digest of the blobs that
    the data is derived from. Every method blocks on disk only.
    """

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        """The data, open for reading and mmap, or None if it must be derived again."""
        ...

    def put(self, kind: str, key: Digest) -> AbstractContextManager[BinaryIO]:
        """A file to write the data to. It appears complete when the block ends.

        If the block raises, the file is removed.
        """
        ...


@dataclass(frozen=True, slots=True)
class ContentSource:
    """The names and the bytes of one registry or layout, with its name for users."""

    name: str
    catalog: Catalog
    blobs: BlobReader
