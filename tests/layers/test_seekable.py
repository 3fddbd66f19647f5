"""Checkpoints of one pass over a layer: each span decodes by itself, to the same bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocifs.errors import IntegrityError, OcifsError
from ocifs.layers.indexing import decompress as inflate
from ocifs.layers.indexing.decompress import Decompressor
from ocifs.layers.indexing.digests import StreamDigests
from ocifs.layers.spans import deflate
from ocifs.layers.spans.checkpoints import LONGEST, SPACING, CheckpointBuilder, decode
from ocifs.layers.spans.span import FROM_TAR, SpanMap
from ocifs.settings import KIB, MIB, Limits

DICE = random.Random(11)


def mixed(size: int) -> bytes:
    """Text, noise (stored by deflate, from the start of a byte) and zeros in turns."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        length = DICE.randrange(1, 90_000)
        text = b" ".join(b"%x" % DICE.randrange(5000) for _ in range(length // 4))
        parts.append(DICE.choice([text, DICE.randbytes(length), bytes(length)]))
    return b"".join(parts)[:size]


PLAIN = mixed(7 * MIB)


def parts(size: int) -> list[bytes]:
    return [PLAIN[start : start + size] for start in range(0, len(PLAIN), size)]


def raw_flushed(level: int) -> bytes:
    """A gzip stream with block boundaries at random positions."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31, 3)
    out = []
    for part in parts(50_001):
        out += [
            packer.compress(part),
            packer.flush(DICE.choice([zlib.Z_SYNC_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_BLOCK])),
        ]
    return b"".join([*out, packer.flush()])


def stored() -> bytes:
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    return packer.compress(PLAIN) + packer.flush()


FORMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip": (lambda: gzip.compress(PLAIN, 6, mtime=0), "gzip"),
    "gzip fast": (lambda: gzip.compress(PLAIN, 1, mtime=0), "gzip"),
    "gzip flushed": (lambda: raw_flushed(6), "gzip"),
    "gzip stored": (stored, "gzip"),
    "gzip, members": (lambda: b"".join(gzip.compress(part, 1) for part in parts(700_001)), "gzip"),
    "gzip, many small members": (
        lambda: b"".join(gzip.compress(part, 1) for part in parts(5_001)),
        "gzip",
    ),
    "gzip, members with padding": (
        lambda: b"".join(gzip.compress(part, 1) + bytes(9) for part in parts(3_000_000)),
        "gzip",
    ),
    "plain": (lambda: PLAIN, "none"),
    "zstd, frames": (lambda: b"".join(zstandard.compress(part) for part in parts(300_000)), "zstd"),
    "zstd, skippable frames": (
        lambda: b"".join(
            b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(part) for part in parts(900_000)
        ),
        "zstd",
    ),
    "zstd, one frame": (lambda: zstandard.compress(PLAIN + PLAIN), FROM_TAR),
    "zstd, one frame at the end": (
        lambda: zstandard.compress(PLAIN[: 6 * MIB]) + zstandard.compress(PLAIN * 2),
        FROM_TAR,
    ),
    "bzip2": (lambda: bz2.compress(PLAIN, 1), FROM_TAR),
    "xz": (lambda: lzma.compress(PLAIN, preset=0), FROM_TAR),
}


@cache
def made(form: str) -> bytes:
    return FORMS[form][0]()


def passed(blob: bytes, piece: int = 2 * MIB) -> tuple[bytes, SpanMap, Decompressor]:
    """One pass over a blob: the decompressed bytes, the spans, and the decompressor."""
    place = 0

    def take() -> bytes:
        nonlocal place
        place += piece
        return blob[place - piece : place]

    cutter = CheckpointBuilder()
    inflater = Decompressor(take, Limits(), cutter)
    digests = StreamDigests("sha256")
    return b"".join(digests.hashed(inflater.pieces())), cutter.spans(digests.checksums), inflater


@pytest.mark.parametrize("piece", [2 * MIB, 10_007], ids=["long pieces", "short pieces"])
@pytest.mark.parametrize("form", FORMS)
def test_every_span_is_decoded_by_itself(form: str, piece: int) -> None:
    blob, compression = made(form), FORMS[form][1]
    plain, spans, _ = passed(blob, piece)
    assert plain.startswith(PLAIN[: 6 * MIB])
    assert spans.compression == compression
    source = plain if compression == FROM_TAR else blob
    end = 0
    for span in spans:
        assert (span.position, span.length <= LONGEST + MIB) == (end, True)
        end += span.length
        assert (
            decode(compression, span, source[span.start : span.stop]) == plain[span.position : end]
        )
    assert end == len(plain)
    assert sum(len(span.window.read()) for span in spans if span.window) <= max(
        40 * KIB, len(plain) // 64
    )


def test_places_are_as_near_as_they_may_be() -> None:
    _, spans, _ = passed(made("gzip"))
    assert len(spans) >= len(PLAIN) // (SPACING * 3)
    assert {span.window.bit for span in spans if span.window} - {0}, (
        "some blocks begin in the middle of a byte"
    )


def test_bytes_that_changed_are_an_error_wherever_they_are() -> None:
    for form, (_, compression) in FORMS.items():
        blob = made(form)
        plain, spans, _ = passed(blob)
        source = plain if compression == FROM_TAR else blob
        for _ in range(12):
            span = spans[DICE.randrange(len(spans))]
            data = bytearray(source[span.start : span.stop])
            data[DICE.randrange(len(data))] ^= 1 << DICE.randrange(8)
            try:
                same = decode(compression, span, bytes(data))
            except IntegrityError:
                continue
            # A bit that means nothing: of a name in a header, of padding, of what comes before the
            # block.
            assert same == plain[span.position : span.position + span.length], form


@cache
def cut_gzip() -> SpanMap:
    return passed(made("gzip"))[1]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["gzip", "zstd", "none", FROM_TAR, "else"]),
    st.binary(min_size=1, max_size=2000),
    st.booleans(),
)
def test_any_bytes_for_a_span_are_an_error(compression: str, data: bytes, middle: bool) -> None:
    span = cut_gzip()[1]
    assert span.window is not None
    with pytest.raises(OcifsError):
        decode(compression, span if middle else replace(span, window=None), data)


def test_a_bomb_in_a_span_makes_no_more_than_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    _, spans, _ = passed(zstandard.compress(b"x" * MIB))
    for compression, bomb in (
        ("gzip", gzip.compress(bytes(64 * MIB))),
        ("zstd", zstandard.compress(bytes(64 * MIB))),
    ):
        with pytest.raises(IntegrityError, match="does not match"):
            decode(compression, spans[0], bomb)


def test_the_system_s_zlib_does_where_the_package_hides_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hidden(*arguments: object) -> deflate.ZlibLibrary:
        if arguments[1]:
            raise AttributeError("no such symbol")
        return Library(*arguments)

    Library = deflate.ZlibLibrary
    monkeypatch.setattr(deflate, "ZlibLibrary", hidden)
    deflate.find_zlib.cache_clear()
    try:
        blob = made("gzip flushed")
        plain, spans, _ = passed(blob)
        assert plain == PLAIN
        assert len(spans) > 2
        for span in spans:
            decode("gzip", span, blob[span.start : span.stop])
    finally:
        deflate.find_zlib.cache_clear()


def test_without_any_zlib_a_gzip_is_read_from_its_plain_tar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inflate, "open_block_inflater", lambda: None)
    plain, spans, _ = passed(gzip.compress(PLAIN + PLAIN, 1))
    assert plain == PLAIN + PLAIN
    assert spans.compression == FROM_TAR
