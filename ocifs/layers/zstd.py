"""zstd (RFC 8878), as Python has it from 3.14 on, and by the same code before.

Rules that hold here: whoever decodes says how much may come out, and how much memory a frame may ask for.
"""

from __future__ import annotations

import sys
from typing import TypeAlias

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

compress = zstd.compress
decompress = zstd.decompress
ZstdError = zstd.ZstdError
Frame: TypeAlias = zstd.ZstdDecompressor


def open_frame(window: int) -> Frame:
    """A decoder of one frame, or a skippable one, that refuses to look back further than `window` bytes (or the power of two below)."""
    return Frame(options={zstd.DecompressionParameter.window_log_max: window.bit_length() - 1})


def first_of(data: bytes, size: int, window: int) -> bytes:
    """The first `size` plain bytes of one frame after the other; fewer where they have no more. Raises ZstdError."""
    parts: list[bytes] = []
    while data and size:
        frame = open_frame(window)
        while size and not frame.eof and (data or not frame.needs_input):
            parts.append(frame.decompress(data, size))
            size -= len(parts[-1])
            data = b""
        data = frame.unused_data
    return b"".join(parts)
