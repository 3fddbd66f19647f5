"""Spans: which bytes of a blob decode to which positions of a layer."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Malformed
from ocifs.layers.spans.span import Checksum, Span, SpanMap, Window

SUM = Checksum.of(b"")


def spans_of(lengths: list[tuple[int, int]]) -> list[Span]:
    """Spans with gaps before them, each decoded from as many bytes of the blob."""
    spans, plain = [], 0
    for gap, length in lengths:
        window = Window(gap % 8, b"w") if gap else None
        spans.append(Span(plain + gap, length, plain, plain + length, SUM, window))
        plain += gap + length
    return spans


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=12),
    st.integers(0, 90),
    st.integers(0, 90),
)
def test_the_spans_of_a_range_are_those_that_have_some_of_it_and_none_where_it_is_not_covered(
    lengths: list[tuple[int, int]], start: int, stop: int
) -> None:
    spans = spans_of(lengths)
    found = SpanMap("gzip", spans)
    assert list(found) == spans
    covered = {
        place for span in spans for place in range(span.position, span.position + span.length)
    }
    if covered.issuperset(range(start, stop)):
        wanted = [
            n for n, s in enumerate(spans) if s.position < stop and start < s.position + s.length
        ]
        assert list(found.numbers(start, stop)) == (wanted if start < stop else [])
    else:
        with pytest.raises(Malformed):
            found.numbers(start, stop)


@pytest.mark.parametrize(
    "second",
    [
        Span(2, 3, 9, 10, SUM),
        Span(3, 0, 9, 10, SUM),
        Span(3, 1, 9, 9, SUM),
        Span(3, 1, 9, 10, Checksum("sha512", SUM.value)),
        Span(3, 1, 9, 10, Checksum("sha256", b"")),
    ],
)
def test_spans_out_of_order_or_with_other_checksums_are_refused(second: Span) -> None:
    with pytest.raises(Malformed):
        SpanMap("gzip", [Span(0, 3, 0, 9, SUM), second])


def test_a_checksum_fits_its_bytes_alone_and_never_when_it_is_short() -> None:
    assert Checksum.of(b"abc").matches(b"abc")
    assert not Checksum.of(b"abc").matches(b"abd")
    assert Checksum("sha512", hashlib.sha512(b"abc").digest()).matches(b"abc")
    assert not Checksum("sha256", hashlib.sha256(b"abc").digest()[:15]).matches(b"abc")
    assert not Checksum("sha256", b"").matches(b"abc")
