"""Lazy layers that are created by hand, so that a test can falsify the table, and their parsing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio
import zstandard

from ocifs.content import Blob
from ocifs.errors import Malformed
from ocifs.layers.toc import estargz
from ocifs.layers.toc.formats import TocFormats
from ocifs.layers.toc.protocol import Toc, TocSource
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

Entry = dict[str, object]
POSITION = "io.github.containers.zstd-chunked.manifest-position"
CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"


@dataclass
class Made:
    """A layer: its blob, the annotations of its descriptor, and the table that is in it."""

    blob: bytes
    annotations: Mapping[str, str]
    toc: bytes


@dataclass
class Contents:
    """Entries and content of a layer: `put` adds one, with its content split into chunks."""

    compress: Callable[[bytes], bytes]
    entries: list[Entry] = field(default_factory=list)
    body: bytes = b""
    padding: bytes = b""

    def end(self) -> bytes:
        """The content, with the padding of the last file."""
        return self.body + (self.compress(self.padding) if self.padding else b"")

    def put(self, name: str, *chunks: bytes, **facts: object) -> None:
        """Add an entry; a regular file unless `type` is given."""
        entry: Entry = {"type": "reg", "name": name, "mode": 0o644, **facts}
        self.body += self.compress(self.padding + _header(entry, sum(map(len, chunks))))
        at, size = 0, sum(map(len, chunks))
        rows: list[Entry] = [entry, *({"type": "chunk", "name": name} for _ in chunks[1:])]
        for row, chunk in zip(rows, chunks, strict=False):
            digest = f"sha256:{hashlib.sha256(chunk).hexdigest()}"
            row |= {"offset": len(self.body), "chunkOffset": at, "chunkDigest": digest}
            if len(chunks) > 1:
                row["chunkSize"] = len(chunk)
            self.body += self.compress(chunk)
            at += len(chunk)
        self.padding = bytes(-size % 512)
        if size:
            entry["size"] = size
        self.entries += rows

    def put_together(self, **files: bytes) -> None:
        """Add files that share one member, as eStargz does with a minimum size of members."""
        member, place = self.padding, len(self.body)
        for name, content in files.items():
            entry: Entry = {
                "type": "reg",
                "name": name,
                "mode": 0o644,
                "size": len(content),
                "offset": place,
            }
            member += _header(entry, len(content))
            entry |= {
                "innerOffset": len(member),
                "chunkDigest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            }
            member += content + bytes(-len(content) % 512)
            self.entries.append(entry)
        self.padding = b""
        self.body += self.compress(member)


_TYPES = {
    "reg": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def _header(entry: Entry, size: int) -> bytes:
    """The headers of an entry in the tar."""
    info = tarfile.TarInfo(str(entry["name"]))
    info.type, info.size, info.linkname = (
        _TYPES[str(entry["type"])],
        size,
        str(entry.get("linkName", "")),
    )
    info.mode = int(str(entry["mode"])) & 0o7777
    info.devmajor, info.devminor = (
        int(str(entry.get("devMajor", 0))),
        int(str(entry.get("devMinor", 0))),
    )
    return info.tobuf(tarfile.PAX_FORMAT)


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def starred(contents: Contents, toc: bytes | None = None) -> Made:
    """An eStargz layer, with the given table or the correct one."""
    toc = table(contents.entries) if toc is None else toc
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("stargz.index.json")
        info.size = len(toc)
        tar.addfile(info, io.BytesIO(toc))
    body = contents.end()
    blob = body + zipped(file.getvalue()) + footer(len(body))
    return Made(blob, {estargz.ANNOTATION: str(Digest.of(toc))}, toc)


def starred_apart(contents: Contents, toc: bytes | None = None) -> tuple[Made, bytes]:
    """An eStargz layer without its table, and a blob with the given table or the correct one."""
    toc = table(contents.entries) if toc is None else toc
    whole = starred(contents, toc)
    body = contents.end()
    beside = whole.blob[len(body) : -len(footer(0))]
    last = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x15\0SG\x11\0STARGZEXTERNALTOC\x01\0\0\xff\xff" + bytes(
        8
    )
    return Made(body + last, whole.annotations, toc), beside


def footer(place: int) -> bytes:
    extra = b"SG\x16\x00%016xSTARGZ" % place
    return b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0" + extra + b"\x01\0\0\xff\xff" + bytes(8)


def chunked(contents: Contents, toc: bytes | None = None) -> Made:
    """A zstd:chunked layer, with the given table or the correct one."""
    toc = table(contents.entries) if toc is None else toc
    packed = zstd(toc)
    body = contents.end() + zstd(bytes(1024))
    start = len(body) + 8
    blob = body + b"\x50\x2a\x4d\x18" + len(packed).to_bytes(4, "little") + packed
    annotations = {
        CHECKSUM: str(Digest.of(packed)),
        POSITION: f"{start}:{len(packed)}:{len(toc)}:1",
    }
    return Made(blob, annotations, toc)


def chunked_by_nerdctl(contents: Contents, toc: bytes | None = None) -> Made:
    """The same as written by stargz-snapshotter: also with the annotation of eStargz."""
    made = chunked(contents, toc)
    return Made(
        made.blob, {**made.annotations, estargz.ANNOTATION: str(Digest.of(made.toc))}, made.toc
    )


def table(entries: Sequence[Entry], **more: object) -> bytes:
    return json.dumps({"version": 1, "entries": entries, **more}).encode()


class Memory:
    """A BlobReader of one blob. `asked`: the ranges that were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    async def blob_size(self, repository: str, digest: Digest) -> int:
        return len(self.data)

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        self.asked.append((offset, length))
        return self.data[offset : offset + length]

    def acquire(self, digest: Digest) -> None:
        pass

    def release(self, digest: Digest) -> None:
        pass


def read(made: Made, limits: Limits | None = None) -> Toc | None:
    """The table of a layer; None if it is rejected or not named."""
    blob = Blob("app", Digest.of(made.blob), len(made.blob))
    try:
        ref = TocFormats().ref(made.annotations)
    except Malformed:
        return None
    if ref is None:
        return None
    return trio.run(TocFormats().fetch, TocSource(Memory(made.blob), blob, ref, limits or Limits()))
