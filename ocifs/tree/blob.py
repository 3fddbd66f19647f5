"""A blob as a file: the exact bytes that its digest names.

Rules that hold here: one inode a blob of a host, whatever names lead to it; making the node asks
nobody; what was cut into several blobs is read as one file, each part from its own blob.
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
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.digest import Digest
from ocifs.tree.names import to_bytes
from ocifs.tree.node import FILE, Attributes, SimpleNode


class OfHost:
    """The reader of one of several hosts.

    Its files are other inodes than those of the same bytes on another host, which may be down.
    """

    def __init__(self, host: str, reader: BlobReader) -> None:
        self.host = host
        self._reader = reader
        self.blob_size, self.read_blob = reader.blob_size, reader.read_blob
        self.acquire, self.release = reader.acquire, reader.release


def scope_of(reader: BlobReader) -> tuple[str, ...]:
    """What the keys of files have to end with that this reader reads."""
    return (reader.host,) if isinstance(reader, OfHost) else ()


class BlobFile(SimpleNode):
    """The file of one blob, whose size must be known."""

    __slots__ = ("_blob", "_media_type", "_reader")
    changes = False

    def __init__(self, reader: BlobReader, blob: Blob, media_type: str, mtime_ns: int = 0) -> None:
        super().__init__(
            ("blob", str(blob.digest), *scope_of(reader)), Attributes(FILE, blob.size, mtime_ns)
        )
        self._reader = reader
        self._blob = blob
        self._media_type = media_type

    async def read(self, offset: int, size: int) -> bytes:
        wanted = max(0, min(size, self._blob.size - offset))
        if not wanted:
            return b""
        with explain_foreign_urls(self._blob.urls):
            return await self._reader.read_blob(self._blob, offset, wanted)
        raise AssertionError("elsewhere raises what it catches")

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
        raise NoAttribute(f"a blob has no extended attribute {name!r}")


class JoinedFile(SimpleNode):
    """One file that its publisher cut into several blobs."""

    __slots__ = ("_parts",)
    changes = False

    def __init__(self, parts: Sequence[BlobFile], mtime_ns: int = 0) -> None:
        size = sum(part.attributes.size for part in parts)
        super().__init__(
            ("joined", *(part.key for part in parts)), Attributes(FILE, size, mtime_ns)
        )
        self._parts = tuple(parts)

    async def read(self, offset: int, size: int) -> bytes:
        found = b""
        for part in self._parts:
            here = part.attributes.size
            if size > 0 and offset < here:
                piece = await part.read(offset, min(size, here - offset))
                found += piece
                size -= len(piece)
            offset = max(0, offset - here)
        return found


@contextmanager
def explain_foreign_urls(urls: Sequence[str]) -> Iterator[None]:
    """Say of a blob that the registry does not have, though its descriptor says where else it is,
    that this is why.

    Nobody checks what stands in a descriptor's `urls`: a publisher could have any address asked
    from this machine.
    """
    try:
        yield
    except NotFound:
        if not urls:
            raise
        place = urls[0].partition("?")[0]  # what follows may be a signature that gives access
        raise Unsupported(
            f"the registry does not have this blob; its descriptor says that {place} has it, and ocifs asks nobody but the registry"
        ) from None


@contextmanager
def named_in_errors(image: str, layer: Digest | None = None) -> Iterator[None]:
    """Name the image, and the layer, in an error about what is in it, unless the error names it
    already.
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
    """The error inside a tree for a layer that the registry or the layout does not have.

    Nothing is known of the names in it, and programs pass over what is not there.
    """
    hint = error.hint or "the registry has lost it, or it was never pushed"
    return RegistryFailed(f"a layer is gone: {error}", hint=hint)


async def with_known_size(reader: BlobReader, blob: Blob) -> Blob:
    """The same blob with its size, asked for where nothing recorded it (Docker's schema 1, a blob
    entered by name).
    """
    if blob.size != UNKNOWN_SIZE:
        return blob
    return Blob(
        blob.repository,
        blob.digest,
        await reader.blob_size(blob.repository, blob.digest),
        blob.data,
        blob.urls,
    )
