"""A blob as a file, and the errors that readers of blobs share.

Rules that hold here:

- A blob is one inode under all of its names. In a mount of several hosts it is one inode for each
  host, since one host may be down while another serves the same bytes.
- Creating a node causes no I/O.
- A file that its publisher split is read as one file; each part comes from its own blob.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ocifs.content import Blob, BlobReader
from ocifs.errors import (
    LimitExceeded,
    Malformed,
    NoAttribute,
    NotFound,
    RegistryFailed,
    Unsupported,
)
from ocifs.filenames import to_bytes
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.digest import Digest
from ocifs.tree.base import SimpleNode
from ocifs.tree.node import FILE, Attributes, File


class ScopedReader:
    """A BlobReader with another key scope, for one of several hosts."""

    def __init__(self, reader: BlobReader, key_scope: tuple[str, ...]) -> None:
        self.key_scope = key_scope
        self.blob_size, self.read_blob = reader.blob_size, reader.read_blob
        self.acquire, self.release = reader.acquire, reader.release


class BlobFile(SimpleNode):
    """The file of one blob. The blob's size must be known."""

    __slots__ = ("_blob", "_media_type", "_reader")

    def __init__(self, reader: BlobReader, blob: Blob, media_type: str, mtime_ns: int = 0) -> None:
        super().__init__(
            ("blob", str(blob.digest), *reader.key_scope), Attributes(FILE, blob.size, mtime_ns)
        )
        self._reader = reader
        self._blob = blob
        self._media_type = media_type

    async def read(self, offset: int, size: int) -> bytes:
        return await self._read(offset, size, 0)

    async def read_toward_end(self, offset: int, size: int) -> bytes:
        """`read` for a caller that reads the whole file: the rest may be fetched ahead."""
        return await self._read(offset, size, self._blob.size)

    async def _read(self, offset: int, size: int, toward: int) -> bytes:
        length = max(0, min(size, self._blob.size - offset))
        if not length:
            return b""
        with explain_foreign_urls(self._blob.urls):
            return await self._reader.read_blob(self._blob, offset, length, toward)
        # Never reached. For mypy, any context manager may suppress an error.
        raise AssertionError("explain_foreign_urls has suppressed an error")

    def on_open(self) -> None:
        self._reader.acquire(self._blob.digest)

    def on_close(self) -> None:
        self._reader.release(self._blob.digest)

    def attribute_names(self) -> Sequence[bytes]:
        return (
            (b"user.oci.digest", b"user.oci.media-type")
            if self._media_type
            else (b"user.oci.digest",)
        )

    async def attribute(self, name: bytes) -> bytes:
        if name == b"user.oci.digest":
            return str(self._blob.digest).encode()
        if name == b"user.oci.media-type" and self._media_type:
            return to_bytes(self._media_type)
        raise NoAttribute(f"no such extended attribute: {name!r}")


class JoinedFile(SimpleNode):
    """One file that its publisher split into several blobs."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[BlobFile], mtime_ns: int = 0) -> None:
        size = sum(part.attributes.size for part in parts)
        super().__init__(
            ("joined", *(part.key for part in parts)), Attributes(FILE, size, mtime_ns)
        )
        self._parts = tuple(parts)

    async def read(self, offset: int, size: int) -> bytes:
        content = b""
        for part in self._parts:
            part_size = part.attributes.size
            if size > 0 and offset < part_size:
                piece = await part.read(offset, min(size, part_size - offset))
                content += piece
                size -= len(piece)
            offset = max(0, offset - part_size)
        return content


async def read_toward_end(file: File, offset: int, size: int) -> bytes:
    """Read a file that is read to its end: if it is a blob, the rest may be fetched ahead."""
    if isinstance(file, BlobFile):
        return await file.read_toward_end(offset, size)
    return await file.read(offset, size)


@contextmanager
def explain_foreign_urls(urls: Sequence[str]) -> Iterator[None]:
    """Turn NotFound into Unsupported if the blob's descriptor names URLs outside of the registry.

    ocifs never fetches them: a publisher could make this machine request any address.
    """
    try:
        yield
    except NotFound:
        if not urls:
            raise
        # The query may be a signature that grants access.
        url = urls[0].partition("?")[0]
        raise Unsupported(
            "the registry does not have this blob, "
            f"and ocifs does not fetch from the URL in its descriptor: {url}"
        ) from None


@contextmanager
def named_in_errors(image: str, layer: Digest | None = None) -> Iterator[None]:
    """Add the names of the image and the layer to an error about their content, unless it has
    them.
    """
    try:
        yield
    except (Malformed, LimitExceeded) as error:
        text = str(error)
        names = [
            name
            for name in (image, f"layer {layer}" if layer is not None else "")
            if name and name not in text
        ]
        if not names:
            raise
        raise type(error)(f"{', '.join(names)}: {text}", hint=error.hint) from None


def layer_missing_error(error: NotFound) -> RegistryFailed:
    """The error inside a tree if a layer does not exist in the registry or the layout.

    It must not be NotFound: the names in the layer are unknown, and programs skip absent names.
    """
    hint = error.hint or "the registry has lost it, or it was never pushed"
    return RegistryFailed(f"missing layer: {error}", hint=hint)


async def with_known_size(reader: BlobReader, blob: Blob) -> Blob:
    """The blob with its size. One request if no descriptor has it: Docker's schema 1 records no
    sizes, and a blob may be entered by its digest.
    """
    if blob.size != UNKNOWN_SIZE:
        return blob
    size = await reader.blob_size(blob.repository, blob.digest)
    return Blob(blob.repository, blob.digest, size, blob.data, blob.urls)
