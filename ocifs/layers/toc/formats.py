"""Layers that bring a table of contents: which they are, and fetching and checking the table
instead of the layer.

Rules that hold here: only annotations of a layer's descriptor, which its manifest's digest covers,
make a table believed, or the user's word for SOCI's, which anybody who may push can attach; for a
table that lies apart nobody is asked before the layer says that it does; a table that lies or
passes a bound is refused, which is logged, and the layer is then the plain tar that it also is; an
outage is no refusal.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ocifs.concurrency import in_thread
from ocifs.content import Blob, BlobReader
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, Unsupported
from ocifs.layers.toc import estargz, zstd_chunked
from ocifs.layers.toc.crfs import Toc
from ocifs.oci.digest import Digest
from ocifs.settings import KIB, MIB, Limits

log = logging.getLogger(__name__)

# What is read of an eStargz layer's end before its footer says where the table begins: the table of
# a Debian of 270 MB is 0.44 % of it. A larger one costs a request more.
_TAIL, _MOST = 128 * KIB, 1 * MIB
_SHARE = 200
SOCI = "soci"

TocFinder: TypeAlias = Callable[[], Awaitable[Mapping[Digest, Blob]]]
"""Asks for tables of contents that lie beside layers, by their layers' digests."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A table of contents that a layer's annotations name: its format, its digest, and its place
    where they say it.

    `apart`: the blob that it is, where it lies beside the layer, as SOCI's does; `ask`: for the
    blobs that may be it, by their layers' digests, where the layer says that it has none itself.
    """

    form: str
    digest: Digest
    chunked: zstd_chunked.Promise | None = None
    apart: Blob | None = None
    ask: TocFinder | None = field(default=None, compare=False, repr=False)

    def key(self, blob: Blob) -> Digest:
        """What is made of the layer by this table is kept under this name: another manifest may
        name another table for the same blob.
        """
        chunked = self.chunked
        place = "" if chunked is None else f"{chunked.start}:{chunked.length}:{chunked.plain}"
        if chunked is not None and chunked.plain_digest is not None:
            place += f" {chunked.plain_digest}"
        return Digest.of(f"{blob.digest} {self.form} {self.digest} {place}".encode())


def promised(
    annotations: Mapping[str, str], apart: Blob | None = None, ask: TocFinder | None = None
) -> Promise | None:
    """The table that annotations of a layer name, else the one `apart`; None if they name none.

    Raises Malformed for what makes no sense.

    Annotations of both eStargz and zstd:chunked are those of one table, which has to be what both
    say.
    """
    chunked = zstd_chunked.promise(annotations)
    named = annotations.get(estargz.ANNOTATION)
    starred = None if named is None else Promise("estargz", Digest.parse(named), ask=ask)
    if chunked is None and starred is None and apart is not None:
        return Promise(SOCI, apart.digest, apart=apart)
    if chunked is None:
        return starred
    return Promise("zstd:chunked", chunked.digest, chunked)


async def fetch_table(
    blobs: BlobReader, blob: Blob, promise: Promise, limits: Limits
) -> Toc | None:
    """The layer's table of contents, verified; None where it is refused.

    Raises whatever reading the blob raises.
    """
    try:
        if promise.apart is not None:
            return await _ztoc(blobs, blob, promise.apart, limits)
        if promise.chunked is not None:
            return await _chunked(blobs, blob, promise.chunked, limits)
        return await _estargz(blobs, blob, promise, limits)
    except (Malformed, LimitExceeded, Unsupported) as error:
        log.warning(
            "layer %s of %s is taken as a plain tar: %s",
            blob.digest,
            blob.repository or "the image",
            error,
        )
        return None


async def _ztoc(blobs: BlobReader, blob: Blob, table: Blob, limits: Limits) -> Toc:
    _bound(table.size, limits)
    # With it come FlatBuffers, and NumPy where it is installed: 0.2 s, and a thread for each
    # processor.
    from ocifs.layers.toc.soci import read_ztoc

    data = await _exactly(blobs, table, 0, table.size)
    return await in_thread(read_ztoc, data, blob.size, limits)


async def _chunked(
    blobs: BlobReader, blob: Blob, said: zstd_chunked.Promise, limits: Limits
) -> Toc:
    zstd_chunked.check_place(said, blob.size, limits)
    data = await _exactly(blobs, blob, said.start, said.length)
    return await in_thread(zstd_chunked.read, data, said, limits)


async def _estargz(blobs: BlobReader, blob: Blob, promise: Promise, limits: Limits) -> Toc:
    length = min(blob.size, max(_TAIL, min(_MOST, blob.size // _SHARE)))
    tail = await _exactly(blobs, blob, blob.size - length, length)
    end = estargz.end_of_content(tail, blob.size)
    if end is not None:
        start, data = end, await _beside(blobs, blob, promise, limits)
    else:
        start, stop = estargz.table_place(tail, blob.size)
        _bound(stop - start, limits)
        missing = max(0, blob.size - length - start)
        data = await _exactly(blobs, blob, start, missing) if missing else b""
        data += tail[max(0, length - (blob.size - start)) : length - (blob.size - stop)]
    return await in_thread(estargz.read, data, start, promise.digest, limits)


async def _beside(blobs: BlobReader, blob: Blob, promise: Promise, limits: Limits) -> bytes:
    """The compressed table of an eStargz layer that has none itself."""
    found = {} if promise.ask is None else await promise.ask()
    table = found.get(blob.digest)
    if table is None:
        raise Malformed("its table of contents lies apart from it, and is not found beside its tag")
    _bound(table.size, limits)
    return await _exactly(blobs, table, 0, table.size)


def _bound(size: int, limits: Limits) -> None:
    if size < 0:
        raise Malformed("the table of contents has a descriptor without a size")
    if size > limits.toc_bytes:
        raise LimitExceeded(
            f"the table of contents has more than limits.toc_bytes ({limits.toc_bytes})"
        )


async def _exactly(blobs: BlobReader, blob: Blob, start: int, length: int) -> bytes:
    data = await blobs.read_blob(blob, start, length)
    if len(data) != length:
        raise IntegrityError(f"{blob.digest} ends before the size that its descriptor says")
    return data
