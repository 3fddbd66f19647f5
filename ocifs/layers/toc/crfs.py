"""Tables of contents that come with a layer: what eStargz and zstd:chunked have in common, which is
CRFS' list of entries as JSON.

    entries of a tar's members   dir, reg, symlink, hardlink, char, block, fifo, with what a listing
    shows entries of a file's chunks   the `reg` entry itself and the `chunk` entries that follow
    it: where each begins in the blob, its size,
                                 its digest, and where several are in one member, how many bytes of
                                 that come before

The table gives no places in the plain tar, so files are laid out one after the other, as `span.py`
allows. Each chunk is a span.

Rules that hold here: pure; a table is believed whole or refused with Malformed or LimitExceeded,
and then the layer is taken as the plain tar that it also is; whoever calls has checked the table's
own digest; every byte of content has a digest in the table; chunks lie in the blob before the
table, none over another, also within a member.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
from ocifs.settings import KIB, Limits

_OFTEN = 1 << 10  # entries between two looks for cancellation
_SIZES = (
    4 * KIB,
    64 * KIB,
    1024 * KIB,
)  # characters of an entry: of nearly all, and of the longest
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Toc:
    """What a table of contents says: the entries, and which bytes of the blob make the plain bytes
    that their extents name.

    `size`: of all files together. `prefetch`: so many bytes from the blob's beginning are what the
    image's maker found to be read first; 0 where that is not said.
    """

    entries: tuple[LayerEntry, ...]
    spans: SpanMap
    size: int
    prefetch: int = 0


@dataclass(frozen=True, slots=True)
class CrfsDialect:
    """How one of the two formats differs.

    `end`: where in the blob content ends. `hidden`: names that are the format's own.
    """

    compression: str
    end: int
    hidden: frozenset[bytes] = frozenset()
    landmark: bytes = b""  # what stands before it is to be prefetched


def read_table(text: bytes, form: CrfsDialect, limits: Limits) -> Toc:
    """A table from the plain bytes of its JSON. Raises Malformed and LimitExceeded."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        raise Malformed("the table of contents is no UTF-8") from None
    builder = _TocBuilder(form, limits)
    for number, toc_entry in enumerate(_scan_entries(decoded)):
        if not number % _OFTEN:
            check_cancelled()
        builder.add(toc_entry)
    return builder.finish()


def _scan_entries(text: str) -> Iterator[TocEntry]:
    """The objects of the table's `entries`, one by one, so that they are not all in memory at once."""
    walk = _JsonScanner(text)
    walk.expect("{")
    seen: dict[str, object] = {}
    while walk.more("}", first=not seen):
        name = walk.value()
        walk.expect(":")
        if not isinstance(name, str) or name in seen:
            raise Malformed("the table of contents has a member twice")
        seen[name] = None
        if name != "entries":
            seen[name] = walk.value()
            continue
        walk.expect("[")
        first = True
        while walk.more("]", first=first):
            first = False
            toc_entry = walk.value()
            if not isinstance(toc_entry, dict):
                raise Malformed("the table of contents has an entry that is no object")
            yield toc_entry
    if walk.rest() or seen.get("version") != 1 or "entries" not in seen:
        raise Malformed("the table of contents is of no version that is known")


class _JsonScanner:
    """A place in a JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder()

    def value(self) -> object:
        """The next value.

        It is decoded from a part of the text that is long enough, and never from too long a one.
        """
        self._skip()
        for size in _SIZES:
            part = self._text[self._at : self._at + size]
            whole = len(part) < size
            try:
                found: object
                found, end = self._decoder.raw_decode(part)
            except (ValueError, RecursionError):
                if whole:
                    break
                continue
            if whole or end < size:  # a number that ends with the part may go on
                self._at += end
                return found
        raise Malformed(
            f"the table of contents has invalid or too long JSON at character {self._at}"
        )

    def expect(self, character: str) -> None:
        if not self._take(character):
            raise Malformed(f"the table of contents is no JSON at character {self._at}")

    def more(self, end: str, *, first: bool) -> bool:
        """Whether another element follows in an object or array; passes the comma or the end."""
        if self._take(end):
            return False
        if not first:
            self.expect(",")
        return True

    def rest(self) -> bool:
        self._skip()
        return self._at < len(self._text)

    def _take(self, character: str) -> bool:
        self._skip()
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()


@dataclass(slots=True)
class _Chunk:
    """Bytes of a file: from which place in it, how many (0: to its end), from where in the blob,
    and to where (0: not said).

    `inner`: so many bytes of what begins there come before it.
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
    """A file whose chunks are being gathered.

    `place`: its number among the members; `stop`: where in the blob it ends, or 0.
    """

    place: int
    size: int
    stop: int
    whole: Checksum | None
    chunks: list[_Chunk] = field(default_factory=list)


class _TocBuilder:
    """Members and spans from entries in order."""

    def __init__(self, form: CrfsDialect, limits: Limits) -> None:
        self._form = form
        self._limits = limits
        self._counter = EntryCounter(limits)
        self._chunks = 0
        self._members: list[LayerEntry] = []
        self._files: list[_PendingFile] = []
        self._file: _PendingFile | None = None
        self._prefetch = 0

    def add(self, toc_entry: TocEntry) -> None:
        if parse_text(toc_entry, "type") == "chunk":
            if self._file is None:
                raise Malformed("the table of contents has a chunk of no file")
            self._gather(self._file, toc_entry)
            return
        self._file = None
        entry = parse_entry(toc_entry)
        if entry.path in self._form.hidden:
            if entry.path == self._form.landmark:
                self._prefetch = min(parse_number(toc_entry, "offset"), self._form.end)
            return
        self._counter.count(entry)
        if entry.kind is EntryKind.FILE and entry.size:
            whole = parse_checksum(parse_text(toc_entry, "digest"))
            self._file = _PendingFile(
                len(self._members), entry.size, parse_number(toc_entry, "endOffset"), whole
            )
            self._files.append(self._file)
            self._gather(self._file, toc_entry)
        self._members.append(entry)

    def _gather(self, file: _PendingFile, toc_entry: TocEntry) -> None:
        self._chunks += 1
        if self._chunks > self._limits.layer_members:
            raise LimitExceeded(
                f"the layer has more chunks than limits.layer_members ({self._limits.layer_members})"
            )
        file.chunks.append(_chunk(toc_entry))

    def finish(self) -> Toc:
        for file in self._files:
            _settle(file, self._limits)
        chunks = [chunk for file in self._files for chunk in file.chunks if not chunk.zeros]
        _set_stops(chunks, self._form.end)
        spans = SpanMap(self._form.compression, algorithm=ALGORITHM, width=WIDTH)
        plain = 0
        for file in self._files:
            extents: list[Extent] = []
            for chunk in file.chunks:
                if chunk.checksum is not None:
                    spans.add(
                        Span(
                            plain,
                            chunk.size,
                            chunk.start,
                            chunk.stop,
                            chunk.checksum,
                            None,
                            chunk.inner,
                        )
                    )
                    _extend(extents, Extent(chunk.offset, plain, chunk.size))
                    plain += chunk.size
            self._members[file.place] = self._members[file.place]._replace(extents=tuple(extents))
        if plain > self._limits.layer_bytes:
            raise LimitExceeded(
                f"the layer has more content than limits.layer_bytes ({self._limits.layer_bytes})"
            )
        return Toc(_with_links_behind(self._members), spans, plain, self._prefetch)


def _with_links_behind(entries: list[LayerEntry]) -> tuple[LayerEntry, ...]:
    """The members, with each hard link behind what it leads to: older tables have links of files to
    prefetch before these files.
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
    """Add an extent, or make the last one longer where it goes on."""
    last = extents[-1] if extents else None
    if (
        last is not None
        and last.offset + last.length == extent.offset
        and last.plain + last.length == extent.plain
    ):
        extents[-1] = Extent(last.offset, last.plain, last.length + extent.length)
    else:
        extents.append(extent)


def _settle(file: _PendingFile, limits: Limits) -> None:
    """Check that a file's chunks make it up, in order; fill in what only the last of them, or only
    the file, says.
    """
    end, last = 0, file.chunks[-1]
    last.size = last.size or file.size - last.offset
    last.stop = file.stop
    if len(file.chunks) == 1:
        last.checksum = last.checksum or file.whole
    for chunk in file.chunks:
        if chunk.offset != end or not 0 < chunk.size <= file.size - end:
            raise Malformed("the chunks of a file in the table of contents do not make it up")
        end += chunk.size
        if chunk.zeros:
            chunk.checksum = None
        elif chunk.inner + chunk.size > limits.chunk_bytes:
            raise LimitExceeded(
                f"a chunk of the layer takes more than limits.chunk_bytes ({limits.chunk_bytes})"
            )
        elif chunk.checksum is None:
            raise Malformed("a chunk of the table of contents has no digest")
    if end != file.size:
        raise Malformed("the chunks of a file in the table of contents do not make it up")


def _set_stops(chunks: list[_Chunk], end: int) -> None:
    """Say of each chunk where in the blob its bytes end at the latest: where the next member
    begins, which must not be before.
    """
    # Where the next member begins, where the next chunk does, and at which place of its member.
    following, after, last = end, end, 0
    for chunk in sorted(chunks, key=lambda chunk: (chunk.start, chunk.inner), reverse=True):
        if chunk.start != after:
            following, last = after, chunk.inner + chunk.size
        stop = chunk.stop or following
        if chunk.inner + chunk.size > last or not chunk.start < stop <= following:
            raise Malformed(
                "a chunk of the table of contents lies over another, or outside the content"
            )
        after, last = chunk.start, chunk.inner
        # Up to the next chunk there are headers of the tar, too; no coder makes twice as much of
        # what it is given. A block of zstd (RFC 8878, 3.1.1.2.4: at most 128 KiB) has to be there
        # as a whole, also where a chunk ends in the middle of it.
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
