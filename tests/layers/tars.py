"""Tars for tests, made by the standard library, and the layers made of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator

from ocifs.layers.index.entry import LayerEntry
from ocifs.layers.indexing.decompress import Decompressor
from ocifs.layers.tar.reader import read_tar
from ocifs.settings import Limits

FILE, DIRECTORY, SYMLINK, HARDLINK = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
)


def entry(
    name: str, kind: bytes = FILE, content: bytes = b"", **facts: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry; `facts` are attributes of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mode = 0o755 if kind == DIRECTORY else 0o644
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of those entries, in order."""
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def inflate(data: bytes, limits: Limits | None = None, size: int = 1000) -> bytes:
    """The decompressed bytes of a stream that arrives in pieces."""
    source = pieces(data, size)
    return b"".join(Decompressor(lambda: next(source, b""), limits or Limits()).pieces())


def members(data: bytes, limits: Limits | None = None) -> list[LayerEntry]:
    """The entries of a stream, compressed or not."""
    found: list[LayerEntry] = []
    source = pieces(data)
    read_tar(
        Decompressor(lambda: next(source, b""), limits or Limits()).pieces(),
        limits or Limits(),
        found.append,
    )
    return found


def content(data: bytes, member: LayerEntry) -> bytes:
    """The content of an entry, by its extents in the uncompressed tar."""
    whole = bytearray(member.size)
    for extent in member.extents:
        whole[extent.offset : extent.offset + extent.length] = data[
            extent.position : extent.position + extent.length
        ]
    return bytes(whole)


def names(found: Iterable[LayerEntry]) -> list[bytes]:
    return [member.path for member in found]
