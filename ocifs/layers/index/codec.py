"""Encodes a layer index for the derived cache, from which the layer is listed and read.

    head   the diff ID, sizes and counts
    body   blocks of packed entries; the numbers of the spans, compressed; their windows

The windows of a large layer are in a file of their own (`spans/windows.py`). The head contains its
checksum.

The index and the windows of a Debian root filesystem are 1.2 % of its uncompressed tar.

Rules:

- Pure.
- Data that `encode` did not return is None. A damaged file costs one more pass over the layer, and
  never leads to a wrong tree or a wrong byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from ocifs.layers import zstd
from ocifs.layers.checksummed import seal, unseal
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.index.packed import PackedEntries, pack
from ocifs.layers.spans.span import Checksum, Span, SpanMap, Window
from ocifs.layers.spans.windows import StoredWindow, WindowFile
from ocifs.oci.digest import Digest

KIND = "layer-index.9"

# Position, length, start, stop, bit, size of the window, skip; the checksum follows.
_SPAN = struct.Struct("<QQQQBHI")
_STORED = 8  # added to the bit if the window is in the file of windows
_NO_WINDOW = 255  # in place of a bit


def encode(index: LayerIndex, windows_sha256: str = "") -> bytes:
    """Encode an index.

    `windows_sha256`: the checksum of the file that contains the stored windows. Without it they
    become a part of the index.
    """
    entries = pack(index.entries)
    numbers, windows = b"", b""
    if index.spans is not None:
        numbers, windows = _encode_spans(index.spans, stored=bool(windows_sha256))
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
        "windows": windows_sha256,
    }
    return seal(head, b"".join((*entries.blocks, numbers, windows)))


def decode(
    data: bytes, windows: Callable[[], WindowFile | None] = lambda: None
) -> LayerIndex | None:
    """Decode an index; None for other data, and if its windows are missing.

    `windows` opens the file of windows, if the index has one.
    """
    opened = unseal(data, KIND)
    if opened is None:
        return None
    head: dict[str, Any] = opened[0]
    body = opened[1]
    blocks, start = [], 0
    for size in head["blocks"]:
        blocks.append(body[start : start + size])
        start += size
    file = windows() if head["windows"] else None
    if head["windows"] and file is None:
        return None
    spans = None if head["spans"] is None else _decode_spans(head["spans"], body[start:], file)
    entries = PackedEntries(blocks, head["members"])
    diff_id = Digest.parse(head["diff_id"]) if head["diff_id"] else None
    return LayerIndex(
        entries, diff_id, head["plain_size"], head["compression"], spans, head["prefetch"]
    )


def windows_sha256(data: bytes) -> str | None:
    """Return the checksum of the file of windows of an index; None for other data."""
    opened = unseal(data, KIND)
    return None if opened is None else str(opened[0]["windows"])


def _encode_spans(spans: SpanMap, *, stored: bool) -> tuple[bytes, bytes]:
    numbers, windows = [], []
    for span in spans:
        window = span.window
        bit, size = _NO_WINDOW, 0
        if window is not None and stored and isinstance(window.data, StoredWindow):
            bit, size = _STORED + window.bit, window.data.length
        elif window is not None:
            windows.append(window.read())
            bit, size = window.bit, len(windows[-1])
        numbers.append(
            _SPAN.pack(span.position, span.length, span.start, span.stop, bit, size, span.skip)
            + span.checksum.value
        )
    # Windows are already compressed, each by itself.
    return zstd.compress(b"".join(numbers)), b"".join(windows)


def _decode_spans(head: Sequence[Any], data: bytes, file: WindowFile | None) -> SpanMap:
    compression, algorithm, width, size, *packed = head
    numbers = zstd.decompress(data[:size])
    # Where the next window starts: in the index, and in the file.
    inner, stored = size, 0
    spans = SpanMap(compression, algorithm=algorithm, width=width, packed=bool(packed))
    for start in range(0, len(numbers), _SPAN.size + width):
        position, length, first, stop, bit, deflated, skip = _SPAN.unpack_from(numbers, start)
        value = numbers[start + _SPAN.size : start + _SPAN.size + width]
        window = None
        if bit == _NO_WINDOW:
            pass
        elif bit < _STORED:
            window = Window(bit, data[inner : inner + deflated])
            inner += deflated
        elif file is not None:
            window = Window(bit - _STORED, StoredWindow(file, stored, deflated))
            stored += deflated
        spans.add(Span(position, length, first, stop, Checksum(algorithm, value), window, skip))
    return spans
