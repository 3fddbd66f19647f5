"""CRFS tables of contents: the list of entries in JSON that eStargz and zstd:chunked share.

    entries   files, directories and links, with the attributes that a listing shows
    chunks    the `reg` entry and the `chunk` entries that follow it: the offset in the blob, the
              size and the digest of each chunk. If several chunks share a gzip member or zstd
              frame, `innerOffset` is the position of the chunk in the decompressed member.

The table contains no positions in the uncompressed tar. The content of the files is therefore laid
out one file after the other, as `spans/span.py` permits, and each chunk is a span.

Rules:

- Pure, for a worker thread. The caller has verified the digest of the table.
- A table is used as a whole, or rejected with Malformed or LimitExceeded.
- All content has a digest in the table.
- Chunks are in the blob before the table, and do not overlap, also within a member.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ocifs.concurrency import check_cancelled
from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry
from ocifs.layers.spans.span import Checksum, Span, SpanMap
from ocifs.layers.tar.reader import EntryCounter
from ocifs.layers.toc.crfs_entry import (
    ALGORITHM,
    WIDTH,
    TocEntry,
    parse_checksum,
    parse_entry,
    parse_number,
    parse_text,
)
from ocifs.layers.toc.crfs_json import scan_entries
from ocifs.layers.toc.protocol import Toc
from ocifs.settings import KIB, Limits

_CHECK_INTERVAL = 1 << 10  # entries between two checks for cancellation


@dataclass(frozen=True, slots=True)
class CrfsDialect:
    """The differences between the formats.

    `end`: the end of the content in the blob. `hidden`: paths of files that belong to the format.
    `landmark`: the file that follows the files to prefetch.
    """

    compression: str
    end: int
    hidden: frozenset[bytes] = frozenset()
    landmark: bytes = b""


def read_table(text: bytes, dialect: CrfsDialect, limits: Limits) -> Toc:
    """Parse the JSON of a table. Raises Malformed and LimitExceeded."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        raise Malformed("the table of contents is not UTF-8") from None
    builder = _TocBuilder(dialect, limits)
    for number, toc_entry in enumerate(scan_entries(decoded)):
        if not number % _CHECK_INTERVAL:
            check_cancelled()
        builder.add(toc_entry)
    return builder.finish()


@dataclass(slots=True)
class _Chunk:
    """Bytes of a file at `offset`, in the blob's bytes [start, stop).

    `size`: 0 means up to the end of the file. `inner`: the bytes before it in the same member.
    `stop`: 0 until it is known.
    """

    offset: int
    size: int
    start: int
    inner: int
    stop: int
    checksum: Checksum | None
    zeros: bool


@dataclass(slots=True)
class _PendingFile:
    """A file while its chunks are collected.

    `number`: of its entry. `stop`: its end in the blob, or 0. `whole`: the checksum of the file.
    """

    number: int
    size: int
    stop: int
    whole: Checksum | None
    chunks: list[_Chunk] = field(default_factory=list)


class _TocBuilder:
    """Collects the entries of a table in order."""

    def __init__(self, dialect: CrfsDialect, limits: Limits) -> None:
        self._dialect = dialect
        self._limits = limits
        self._counter = EntryCounter(limits)
        self._chunks = 0
        self._entries: list[LayerEntry] = []
        self._files: list[_PendingFile] = []
        self._file: _PendingFile | None = None
        self._prefetch = 0

    def add(self, toc_entry: TocEntry) -> None:
        if parse_text(toc_entry, "type") == "chunk":
            if self._file is None:
                raise Malformed("the table of contents has a chunk without a file")
            self._add_chunk(self._file, toc_entry)
            return
        self._file = None
        entry = parse_entry(toc_entry)
        # Files of the format itself are neither shown nor counted.
        if entry.path in self._dialect.hidden:
            if entry.path == self._dialect.landmark:
                self._prefetch = min(parse_number(toc_entry, "offset"), self._dialect.end)
            return
        self._counter.count(entry)
        if entry.kind is EntryKind.FILE and entry.size:
            whole = parse_checksum(parse_text(toc_entry, "digest"))
            self._file = _PendingFile(
                len(self._entries), entry.size, parse_number(toc_entry, "endOffset"), whole
            )
            self._files.append(self._file)
            self._add_chunk(self._file, toc_entry)
        self._entries.append(entry)

    def _add_chunk(self, file: _PendingFile, toc_entry: TocEntry) -> None:
        self._chunks += 1
        if self._chunks > self._limits.layer_members:
            raise LimitExceeded(
                "the layer has more chunks than limits.layer_members"
                f" ({self._limits.layer_members})"
            )
        file.chunks.append(_chunk(toc_entry))

    def finish(self) -> Toc:
        for file in self._files:
            _complete_chunks(file, self._limits)
        # Chunks of zeros are holes, without bytes in the blob.
        chunks = [chunk for file in self._files for chunk in file.chunks if not chunk.zeros]
        _set_stops(chunks, self._dialect.end)
        spans = SpanMap(self._dialect.compression, algorithm=ALGORITHM, width=WIDTH)
        position = 0
        for file in self._files:
            extents: list[Extent] = []
            for chunk in file.chunks:
                # After `_complete_chunks`, only chunks of zeros have none. Without an extent they
                # are holes.
                if chunk.checksum is not None:
                    spans.add(
                        Span(
                            position,
                            chunk.size,
                            chunk.start,
                            chunk.stop,
                            chunk.checksum,
                            None,
                            chunk.inner,
                        )
                    )
                    # A file with one extent takes the shorter path of `LayerReader.read`.
                    _extend(extents, Extent(chunk.offset, position, chunk.size))
                    position += chunk.size
            self._entries[file.number] = self._entries[file.number]._replace(extents=tuple(extents))
        if position > self._limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has more content than limits.layer_bytes ({self._limits.layer_bytes})"
            )
        return Toc(_with_links_last(self._entries), spans, position, self._prefetch)


def _with_links_last(entries: list[LayerEntry]) -> tuple[LayerEntry, ...]:
    """Move hard links behind their targets.

    Older tables list links to prefetched files before these files.
    """
    if not any(entry.kind is EntryKind.HARDLINK for entry in entries):
        return tuple(entries)
    seen: set[bytes] = set()
    ordered: list[LayerEntry] = []
    early: list[LayerEntry] = []
    for entry in entries:
        is_early = entry.kind is EntryKind.HARDLINK and entry.link not in seen
        (early if is_early else ordered).append(entry)
        seen.add(entry.path)
    return (*ordered, *early)


def _extend(extents: list[Extent], extent: Extent) -> None:
    """Add an extent, or extend the last one if it continues there."""
    last = extents[-1] if extents else None
    if (
        last is not None
        and last.offset + last.length == extent.offset
        and last.position + last.length == extent.position
    ):
        extents[-1] = Extent(last.offset, last.position, last.length + extent.length)
    else:
        extents.append(extent)


def _complete_chunks(file: _PendingFile, limits: Limits) -> None:
    """Check that the chunks cover the file in order, and fill in omitted fields.

    The size of the last chunk, its end, and the checksum of an only chunk can be omitted.
    """
    end, last = 0, file.chunks[-1]
    last.size = last.size or file.size - last.offset
    last.stop = file.stop
    if len(file.chunks) == 1:
        last.checksum = last.checksum or file.whole
    for chunk in file.chunks:
        if chunk.offset != end or not 0 < chunk.size <= file.size - end:
            raise Malformed("the chunks of a file in the table of contents do not cover it")
        end += chunk.size
        if chunk.zeros:
            chunk.checksum = None
        elif chunk.inner + chunk.size > limits.chunk_bytes:
            raise LimitExceeded(
                f"a chunk of the layer has more than limits.chunk_bytes ({limits.chunk_bytes})"
            )
        elif chunk.checksum is None:
            raise Malformed("a chunk of the table of contents has no digest")
    if end != file.size:
        raise Malformed("the chunks of a file in the table of contents do not cover it")


def _set_stops(chunks: list[_Chunk], end: int) -> None:
    """Set the end of each chunk in the blob: at most the start of the next member."""
    # From the end of the blob: the starts of the next member and of the next chunk, and the
    # position of that chunk in its member.
    following, after, last = end, end, 0
    for chunk in sorted(chunks, key=lambda chunk: (chunk.start, chunk.inner), reverse=True):
        if chunk.start != after:
            following, last = after, chunk.inner + chunk.size
        # `endOffset` is optional, and may leave bytes before the next member unused.
        stop = chunk.stop or following
        if chunk.inner + chunk.size > last or not chunk.start < stop <= following:
            raise Malformed(
                "a chunk of the table of contents overlaps another, or is outside the content"
            )
        after, last = chunk.start, chunk.inner
        # Headers of the tar may follow before the next chunk, so the end is also bounded by the
        # size: compression never doubles its input. A block of zstd (RFC 8878, 3.1.1.2.4: at most
        # 128 KiB) is needed as a whole, even if the chunk ends in the middle of it.
        chunk.stop = min(stop, chunk.start + 2 * (chunk.inner + chunk.size) + 192 * KIB)


def _chunk(toc_entry: TocEntry) -> _Chunk:
    kind = parse_text(toc_entry, "chunkType")
    if kind not in ("", "zeros"):
        raise Malformed(f"the table of contents has a chunk of unknown type {kind[:40]!r}")
    return _Chunk(
        parse_number(toc_entry, "chunkOffset"),
        parse_number(toc_entry, "chunkSize"),
        parse_number(toc_entry, "offset"),
        parse_number(toc_entry, "innerOffset"),
        0,
        parse_checksum(parse_text(toc_entry, "chunkDigest")),
        kind == "zeros",
    )
