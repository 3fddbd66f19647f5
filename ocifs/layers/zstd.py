"""zstd (RFC 8878): the standard library's module from Python 3.14 on, its backport before.

Rules:

- Each call that decompresses untrusted data bounds the output and the window.
"""

from __future__ import annotations

import sys
from typing import TypeAlias

from ocifs.layers.streams import StreamInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

compress = zstd.compress
decompress = zstd.decompress
ZstdError = zstd.ZstdError
ZstdFrame: TypeAlias = zstd.ZstdDecompressor


def open_frame(window: int) -> ZstdFrame:
    """Return a decoder for one frame, which rejects windows larger than `window`.

    The bound is rounded down to a power of two.
    """
    return ZstdFrame(options={zstd.DecompressionParameter.window_log_max: window.bit_length() - 1})


def first_of(data: bytes, size: int, window: int) -> bytes:
    """Decompress frames up to `size` bytes of output, fewer if the frames have fewer.

    Raises ZstdError.
    """
    parts: list[bytes] = []
    source = StreamInput(data)
    while size and source.head(1):
        frame = open_frame(window)
        source.begin()
        while size and not frame.eof:
            part = source.take() if frame.needs_input else b""
            if not part and frame.needs_input:
                return b"".join(parts)
            piece = frame.decompress(part, size)
            if piece:
                parts.append(piece)
            size -= len(piece)
        source.give_back(frame.unused_data if frame.eof else b"")
    return b"".join(parts)
