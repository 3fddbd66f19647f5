"""Deflate that stops between blocks, which Python's own zlib cannot: that is where decoding can be
taken up again.

`inflate` with Z_BLOCK (zlib.h) is called in zlib-ng, which the package of that name brings; where
that keeps its functions to itself, in the zlib of the system. With neither of them `open_inflate`
gives None, and no gzip is entered in the middle.

Rules that hold here: blocking, for a worker thread; the library writes into buffers that live as
long as its stream; the one place in which C is called by hand.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from functools import cache

from zlib_ng import zlib_ng

from ocifs.errors import Malformed
from ocifs.settings import KIB, MIB

_OK, _STREAM_END, _BUF_ERROR = 0, 1, -5
_Z_NO_FLUSH, _Z_BLOCK = 0, 5
_GZIP = 31  # windowBits: 15, and 16 for gzip
# In data_type: bits that were taken and not used (zlib has less than 8 of them, zlib-ng holds whole
# bytes too), in the last block, between.
_UNUSED, _LAST, _BETWEEN = 63, 64, 128
_ROOM = 1 * MIB
WINDOW = 32 * KIB
"""How far back a copy can refer (RFC 1951)."""


def _stream(
    size: type[ctypes.c_size_t] | type[ctypes.c_ulong],
    word: type[ctypes.c_uint32] | type[ctypes.c_ulong],
) -> type:
    """z_stream, or zng_stream, which has other types for sizes and checksums."""

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
    """The functions of one of the two libraries."""

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
        return function  # type: ignore[no-any-return]  # ctypes knows no better


@cache
def find_zlib() -> ZlibLibrary | None:
    choices = (
        (
            zlib_ng.__file__,
            "zng_",
            _stream(ctypes.c_size_t, ctypes.c_uint32),
            str(zlib_ng.ZLIBNG_RUNTIME_VERSION),
        ),
        (
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
        except (OSError, AttributeError):
            continue
    return None


class BlockInflater:
    """One gzip member after the other, stopping between blocks.

    `feed` it, `step` until it wants more.
    """

    def __init__(self, library: ZlibLibrary) -> None:
        self._library = library
        self._stream = library.stream()
        self._pointer = ctypes.pointer(self._stream)
        self._input: bytes | None = None
        self._output = ctypes.create_string_buffer(_ROOM)
        self._address = ctypes.addressof(self._output)
        self._view = memoryview(self._output).cast("B")
        if (
            library.init(self._pointer, _GZIP, library.version, ctypes.sizeof(library.stream))
            != _OK
        ):
            raise MemoryError("zlib cannot be initialized")
        self.eof = False
        self.hungry = True
        self.between: int | None = None

    def __del__(self) -> None:
        if hasattr(self, "between"):
            self._library.end(self._pointer)

    @property
    def left(self) -> int:
        """How many bytes of what was fed are left."""
        left: int = self._stream.avail_in
        return left

    def feed(self, data: bytes) -> None:
        """Give the next bytes, when none are left."""
        self._input = data  # kept while the library reads it
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._stream.avail_in = len(data)

    def again(self) -> None:
        """Begin another member with what is left."""
        self._library.reset(self._pointer)
        self.eof = False

    def step(self, least: int) -> bytes:
        """Plain bytes until a block ends behind the first `least` of them, 1 MiB is full, the
        member ends, or more input is wanted.

        Afterwards `between` is None in the middle of a block, else how many bits that were taken
        are of the next block; `hungry` says whether to feed. Raises Malformed.
        """
        stream, between = self._stream, None
        stream.next_out = self._address
        stream.avail_out = _ROOM
        while True:
            # Where no stop is of use yet, there is none: each costs a turn of the interpreter's
            # lock, which others hold on to.
            early = _ROOM - stream.avail_out < least
            beyond = max(0, _ROOM - least) if early else 0
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
            full, empty = not stream.avail_out, not stream.avail_in and not more
            if (
                self.eof
                or full
                or empty
                or (between is not None and _ROOM - stream.avail_out >= least)
            ):
                break
        self.hungry = empty and not full and not self.eof
        self.between = between
        return bytes(self._view[: _ROOM - stream.avail_out])


def open_block_inflater() -> BlockInflater | None:
    """A decoder, or None where no library has one."""
    library = find_zlib()
    return None if library is None else BlockInflater(library)
