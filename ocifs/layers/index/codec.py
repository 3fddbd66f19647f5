"""Encodes a layer index for the derived cache, from which the layer is listed and read.

    head   the diff ID, sizes and counts
    body   blocks of packed entries; the numbers of the spans, compressed; their windows

The index of a Debian root filesystem is 1.2 % of its uncompressed tar.

Rules:

- Pure.
- Data that `encode` did not return is None. A damaged file costs one more pass over the layer, and
  never leads to a wrong tree or a wrong byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from ocifs.layers import zstd
from ocifs.layers.checksummed import seal, unseal
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.index.packed import PackedEntries, pack
from ocifs.layers.spans.span import Checksum, Span, SpanMap, Window
from ocifs.oci.digest import Digest

KIND = "layer-index.8"

# Position, length, start, stop, bit, size of the window, skip; the checksum follows.
_SPAN = struct.Struct("<QQQQBHI")
_NO_WINDOW = 255  # in place of a bit


def encode(index: LayerIndex) -> bytes:
    """Encode an index."""
    entries = pack(index.entries)
    numbers, windows = _encode_spans(index.spans) if index.spans is not None else (b"", b"")
    spans = None
    if index.spans is not None:
        packed = ["packed"] if index.spans.packed else []
        spans = [
            index.spans.compression,
            index.spans.algorithm,
            index.spans.width,
            len(numbers),
            *packed,
        ]
    head = {
        "kind": KIND,
        "diff_id": str(index.diff_id or ""),
        "plain_size": index.plain_size,
        "compression": index.compression,
        "prefetch": index.prefetch,
        "members": len(entries),
        "blocks": [len(block) for block in entries.blocks],
        "spans": spans,
    }
    return seal(head, b"".join((*entries.blocks, numbers, windows)))


def decode(data: bytes) -> LayerIndex | None:
    """Decode an index; None for other data."""
    opened = unseal(data, KIND)
    if opened is None:
        return None
    head: dict[str, Any] = opened[0]
    body = opened[1]
    blocks, start = [], 0
    for size in head["blocks"]:
        blocks.append(body[start : start + size])
        start += size
    spans = None if head["spans"] is None else _decode_spans(head["spans"], body[start:])
    entries = PackedEntries(blocks, head["members"])
    diff_id = Digest.parse(head["diff_id"]) if head["diff_id"] else None
    return LayerIndex(
        entries, diff_id, head["plain_size"], head["compression"], spans, head["prefetch"]
    )


def _encode_spans(spans: SpanMap) -> tuple[bytes, bytes]:
    numbers, windows = [], []
    for span in spans:
        bit, window = (
            (_NO_WINDOW, b"") if span.window is None else (span.window.bit, span.window.deflated)
        )
        numbers.append(
            _SPAN.pack(
                span.position, span.length, span.start, span.stop, bit, len(window), span.skip
            )
            + span.checksum.value
        )
        windows.append(window)
    return zstd.compress(b"".join(numbers)), b"".join(windows)


def _decode_spans(head: Sequence[Any], data: bytes) -> SpanMap:
    compression, algorithm, width, size, *packed = head
    numbers, window_start = zstd.decompress(data[:size]), size
    spans = SpanMap(compression, algorithm=algorithm, width=width, packed=bool(packed))
    for start in range(0, len(numbers), _SPAN.size + width):
        position, length, first, stop, bit, deflated, skip = _SPAN.unpack_from(numbers, start)
        value = numbers[start + _SPAN.size : start + _SPAN.size + width]
        window = (
            None if bit == _NO_WINDOW else Window(bit, data[window_start : window_start + deflated])
        )
        spans.add(Span(position, length, first, stop, Checksum(algorithm, value), window, skip))
        window_start += deflated
    return spans
