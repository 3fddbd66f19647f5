"""zstd (RFC 8878), as Python has it from 3.14 on, and by the same code before.

Rules that hold here: whoever decodes says how much may come out, and how much memory a frame may
ask for.
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
    """A decoder of one frame, or a skippable one, that refuses to look back further than `window`
    bytes (or the power of two below).
    """
    return ZstdFrame(options={zstd.DecompressionParameter.window_log_max: window.bit_length() - 1})


def first_of(data: bytes, size: int, window: int) -> bytes:
    """The first `size` plain bytes of one frame after the other; fewer where they have no more.

    Raises ZstdError.
    """
    parts: list[bytes] = []
    source = StreamInput(data)
    while size and source.head(1):
        frame = open_frame(window)
        source.begin()
        while size and not frame.eof:
            taken = source.take() if frame.needs_input else b""
            if not taken and frame.needs_input:
                return b"".join(parts)
            piece = frame.decompress(taken, size)
            if piece:
                parts.append(piece)
            size -= len(piece)
        source.give_back(frame.unused_data if frame.eof else b"")
    return b"".join(parts)
