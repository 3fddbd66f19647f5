"""eStargz: a gzip layer of many members, with a table of contents (stargz-snapshotter,
docs/estargz.md).

    member … member     the tar; the content of each file starts a member
    member              the TOC: a tar with one file, `stargz.index.json`
    footer              an empty member with the offset of the TOC in its extra field

The TOC can also be a blob of another image, tagged like the image with `-esgztoc` appended
(docs/smaller-estargz.md). The footer then contains only a marker.

The annotation of the layer's descriptor names the digest of the uncompressed TOC. The manifest's
verified digest covers it. A footer without the annotation is ignored.

Rules:

- The footer, the compressed TOC and the image of TOCs are untrusted. They only lead to bytes that
  must have the digest in the annotation.
- TOCs in another image are found through a tag. An image that was opened by digest has none.
- An invalid image of TOCs is logged and ignored. An outage is an error: a tree must not depend on
  it.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping
from functools import partial

from ocifs.concurrency import in_thread, off_loop
from ocifs.content import Blob
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, NotFound
from ocifs.layers.tar.header import BLOCK, parse_header
from ocifs.layers.toc.crfs import CrfsDialect, read_table
from ocifs.layers.toc.protocol import ImageContext, Toc, TocRef, TocSource
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import parse_manifest
from ocifs.settings import KIB, MIB, Limits

log = logging.getLogger(__name__)

ANNOTATION = "containerd.io/snapshot/stargz/toc.digest"
LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
SUFFIX = "-esgztoc"
TAIL = 51
"""The length of the longest footer, in bytes."""
PREFETCH = b".prefetch.landmark"
"""The file that follows the files to prefetch."""
LANDMARKS = frozenset({PREFETCH, b".no.prefetch.landmark"})

# The first request reads the end of the blob: usually the TOC and the footer together. The TOC of
# a Debian layer of 270 MB is 0.44 % of it. A larger TOC costs one more request.
_TAIL_READ, _MAX_TAIL_READ = 128 * KIB, 1 * MIB
_TAIL_SHARE = 200
_TABLE = "stargz.index.json"
_HIDDEN = LANDMARKS | {_TABLE.encode()}
# The header of an empty gzip member with one extra field (RFC 1952, 2.3.1), and its end. MTIME, XFL
# and OS are not compared.
_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ\x01\x00\x00\xff\xff\x00{8}",
    re.DOTALL,
)
_LEGACY = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x16\x00([0-9a-f]{16})STARGZ\x01\x00\x00\xff\xff\x00{8}", re.DOTALL
)
_EXTERNAL = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x15\x00SG\x11\x00STARGZEXTERNALTOC\x01\x00\x00\xff\xff\x00{8}\Z",
    re.DOTALL,
)


class Estargz:
    """The format of eStargz layers, with the TOC in the layer or in another image."""

    name = "estargz"
    tar_positions = False
    opt_in = False

    def ref(self, annotations: Mapping[str, str]) -> TocRef | None:
        """Return the reference in a layer's annotations, or None. Raises Malformed."""
        named = annotations.get(ANNOTATION)
        return None if named is None else TocRef(self.name, Digest.parse(named))

    async def locate(self, image: ImageContext) -> Mapping[Digest, Blob]:
        """Find the TOCs in the images with the tags of this image and `-esgztoc`."""
        tables: dict[Digest, Blob] = {}
        for tag in image.tags():
            try:
                raw = await image.catalog.tagged(image.repository, tag + SUFFIX)
                parse = partial(parse_manifest, raw.body, raw.digest, raw.media_type)
                for table in (await off_loop(len(raw.body), parse)).layers:
                    if LAYER_DIGEST in table.annotations:
                        layer = Digest.parse(table.annotations[LAYER_DIGEST])
                        tables.setdefault(layer, Blob.of(image.repository, table))
            except NotFound:
                continue
            except Malformed as error:
                log.warning("ignored %s%s: %s", tag, SUFFIX, error)
        return tables

    async def fetch(self, source: TocSource) -> Toc:
        """Fetch the TOC from the end of the layer, or from another image."""
        size = source.layer.size
        length = min(size, max(_TAIL_READ, min(_MAX_TAIL_READ, size // _TAIL_SHARE)))
        tail = await source.read(size - length, length)
        end = end_of_content(tail, size)
        if end is not None:
            start, data = end, await self._fetch_external(source)
        else:
            start, stop = locate_table(tail, size)
            source.check_size(stop - start)
            # Bytes of the TOC before the part that was read.
            missing = max(0, size - length - start)
            data = await source.read(start, missing) if missing else b""
            data += tail[max(0, length - (size - start)) : length - (size - stop)]
        return await in_thread(read, data, start, source.ref.digest, source.limits)

    async def _fetch_external(self, source: TocSource) -> bytes:
        tables = {} if source.image is None else await self.locate(source.image)
        table = tables.get(source.layer.digest)
        if table is None:
            raise Malformed("its table of contents is in another image, which was not found")
        return await source.read_blob(table)


def end_of_content(tail: bytes, size: int) -> int | None:
    """Return the end of the content of a blob of this size, if its footer marks an external TOC."""
    match = _EXTERNAL.search(tail[-TAIL:])
    return None if match is None else size - len(match[0])


def locate_table(tail: bytes, size: int) -> tuple[int, int]:
    """Return the range [start, stop) of the compressed TOC in a blob of this size.

    Raises Malformed.
    """
    # The pattern can also occur within the last bytes of a TOC: only a match at the end counts.
    for footer in (_FOOTER, _LEGACY):
        for match in footer.finditer(tail[-TAIL:]):
            start, stop = int(match[1], 16), size - len(match[0])
            if match.end() == len(tail[-TAIL:]) and 0 <= start < stop:
                return start, stop
    raise Malformed("the layer has the annotation of eStargz, but not its footer")


def read(compressed: bytes, start: int, digest: Digest, limits: Limits) -> Toc:
    """Parse the TOC of a layer with content up to `start`.

    Raises Malformed, IntegrityError and LimitExceeded.
    """
    text = _only_file(_decompressed(compressed, limits))
    if not digest.matches(text):
        raise IntegrityError(f"the table of contents does not have the digest {digest}")
    return read_table(text, CrfsDialect("gzip", start, _HIDDEN, PREFETCH), limits)


def _decompressed(compressed: bytes, limits: Limits) -> bytes:
    # One MiB more than the TOC, for the headers of its tar.
    max_length = limits.toc_bytes + 1 * MIB
    inflater = zlib.decompressobj(wbits=31)
    try:
        tar = inflater.decompress(compressed, max_length)
    except zlib.error as error:
        raise Malformed(f"the table of contents has invalid gzip data: {error}") from None
    if inflater.unconsumed_tail and not inflater.eof:
        raise LimitExceeded(
            f"the table of contents has more than limits.toc_bytes ({limits.toc_bytes})"
        )
    if not inflater.eof:
        raise Malformed("the table of contents ends in the middle of its gzip member")
    return tar


def _only_file(tar: bytes) -> bytes:
    """Return the content of the first file of a tar, which must be the TOC."""
    header = parse_header(tar[:BLOCK])
    if header.name != _TABLE.encode() or header.kind not in (b"0", b"\0") or header.size < 0:
        raise Malformed(f"the table of contents is not a {_TABLE}")
    text = tar[BLOCK : BLOCK + header.size]
    if len(text) != header.size:
        raise Malformed("the table of contents is shorter than the size in its tar header")
    return text
