"""Decompresses gzip and stops between deflate blocks, where checkpoints are possible.

Python's zlib cannot stop there. This module calls `inflate` with Z_BLOCK (zlib.h) through ctypes:
in the zlib-ng of the `zlib_ng` package, or in the system's zlib if the package does not export its
functions. Without either, `open_block_inflater` returns None, and gzip layers have no checkpoints.

Rules:

- Blocking, for a worker thread.
- The library's buffers live as long as its stream.
- No other module of ocifs calls C functions on data.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from functools import cache

from zlib_ng import zlib_ng

from ocifs.errors import Malformed
from ocifs.settings import KIB, MIB

# Z_BUF_ERROR is not fatal (zlib.h): progress needs more input or more room.
_OK, _STREAM_END, _BUF_ERROR = 0, 1, -5
_Z_NO_FLUSH, _Z_BLOCK = 0, 5
_GZIP = 31  # windowBits: 15, and 16 for gzip
# Fields of data_type: the number of bits that were consumed but not used (less than 8 with zlib;
# zlib-ng also holds whole bytes), whether this is the last block, whether a block has ended.
_UNUSED, _LAST, _BETWEEN = 63, 64, 128
_OUTPUT_SIZE = 1 * MIB
WINDOW = 32 * KIB
"""The maximum distance of a back-reference (RFC 1951)."""


def _stream(
    size: type[ctypes.c_size_t] | type[ctypes.c_ulong],
    word: type[ctypes.c_uint32] | type[ctypes.c_ulong],
) -> type:
    """Return z_stream, or zng_stream, which has different types for sizes and checksums."""

    class Stream(ctypes.Structure):
        _fields_ = (
            ("next_in", ctypes.c_void_p),
            ("avail_in", ctypes.c_uint32),
            ("total_in", size),
            ("next_out", ctypes.c_void_p),
            ("avail_out", ctypes.c_uint32),
            ("total_out", size),
            ("msg", ctypes.c_char_p),
            ("state", ctypes.c_void_p),
            ("zalloc", ctypes.c_void_p),
            ("zfree", ctypes.c_void_p),
            ("opaque", ctypes.c_void_p),
            ("data_type", ctypes.c_int),
            ("adler", word),
            ("reserved", ctypes.c_ulong),
        )

    return Stream


class ZlibLibrary:
    """The functions of zlib or zlib-ng."""

    def __init__(self, path: str | None, prefix: str, stream: type, version: bytes) -> None:
        library = ctypes.CDLL(path)
        self.stream = stream
        self.version = version
        self.init = self._function(
            library, f"{prefix}inflateInit2_", ctypes.c_int, ctypes.c_char_p, ctypes.c_int
        )
        self.inflate = self._function(library, f"{prefix}inflate", ctypes.c_int)
        self.reset = self._function(library, f"{prefix}inflateReset")
        self.end = self._function(library, f"{prefix}inflateEnd")

    def _function(self, library: ctypes.CDLL, name: str, *more: type) -> Callable[..., int]:
        function = getattr(library, name)
        function.argtypes = [ctypes.POINTER(self.stream), *more]
        function.restype = ctypes.c_int
        return function  # type: ignore[no-any-return]  # a function pointer


@cache
def find_zlib() -> ZlibLibrary | None:
    """Load the first library that exports the functions; once per process."""
    choices = (
        (
            zlib_ng.__file__,
            "zng_",
            _stream(ctypes.c_size_t, ctypes.c_uint32),
            str(zlib_ng.ZLIBNG_RUNTIME_VERSION),
        ),
        (
            # A zlib module that is built into the interpreter has no file.
            getattr(zlib, "__file__", None),
            "",
            _stream(ctypes.c_ulong, ctypes.c_ulong),
            zlib.ZLIB_RUNTIME_VERSION,
        ),
        ("libz.so.1", "", _stream(ctypes.c_ulong, ctypes.c_ulong), zlib.ZLIB_RUNTIME_VERSION),
    )
    for path, prefix, stream, version in choices:
        try:
            return ZlibLibrary(path, prefix, stream, version.encode())
        # AttributeError: the library does not export the functions.
        except (OSError, AttributeError):
            continue
    return None


class BlockInflater:
    """Decompresses gzip members, and stops between blocks.

    Call `feed`, then `step` until `needs_input` is true. After each step, `between` is the number
    of consumed bits that belong to the next block, or None within a block.
    """

    def __init__(self, library: ZlibLibrary) -> None:
        self._library = library
        self._stream = library.stream()
        self._pointer = ctypes.pointer(self._stream)
        self._input: bytes | None = None
        self._output = ctypes.create_string_buffer(_OUTPUT_SIZE)
        self._address = ctypes.addressof(self._output)
        self._view = memoryview(self._output).cast("B")
        if (
            library.init(self._pointer, _GZIP, library.version, ctypes.sizeof(library.stream))
            != _OK
        ):
            raise MemoryError("zlib cannot be initialized")
        self.eof = False
        self.needs_input = True
        self.between: int | None = None

    def __del__(self) -> None:
        # Set last in `__init__`: without it, the stream was not initialized.
        if hasattr(self, "between"):
            self._library.end(self._pointer)

    @property
    def remaining(self) -> int:
        """The number of bytes of the input that are not consumed."""
        remaining: int = self._stream.avail_in
        return remaining

    def feed(self, data: bytes) -> None:
        """Set the input, after the previous one was consumed."""
        # A reference for as long as the library reads the bytes.
        self._input = data
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._stream.avail_in = len(data)

    def next_member(self) -> None:
        """Start another member with the remaining input."""
        self._library.reset(self._pointer)
        self.eof = False

    def step(self, least: int) -> bytes:
        """Decompress until a block ends after at least `least` bytes of output.

        Stops earlier after 1 MiB, at the end of the member, and if it needs input. Raises
        Malformed.
        """
        stream, between = self._stream, None
        stream.next_out = self._address
        stream.avail_out = _OUTPUT_SIZE
        while True:
            # Each stop releases and reacquires the interpreter's lock, which is slow while other
            # threads compete for it. So do not stop before `least`.
            early = _OUTPUT_SIZE - stream.avail_out < least
            beyond = max(0, _OUTPUT_SIZE - least) if early else 0
            stream.avail_out -= beyond
            code = self._library.inflate(self._pointer, _Z_NO_FLUSH if early else _Z_BLOCK)
            more = beyond > 0 and not stream.avail_out
            stream.avail_out += beyond
            if code not in (_OK, _STREAM_END, _BUF_ERROR):
                message = (stream.msg or b"damaged").decode(errors="replace")
                raise Malformed(f"the layer has invalid gzip data: {message}")
            self.eof = code == _STREAM_END
            kind = stream.data_type
            between = (
                kind & _UNUSED if kind & _BETWEEN and not kind & _LAST and not self.eof else None
            )
            full, is_empty = not stream.avail_out, not stream.avail_in and not more
            if (
                self.eof
                or full
                or is_empty
                or (between is not None and _OUTPUT_SIZE - stream.avail_out >= least)
            ):
                break
        self.needs_input = is_empty and not full and not self.eof
        self.between = between
        return bytes(self._view[: _OUTPUT_SIZE - stream.avail_out])


def open_block_inflater() -> BlockInflater | None:
    """Return a decompressor, or None if no library exports the functions."""
    library = find_zlib()
    return None if library is None else BlockInflater(library)
