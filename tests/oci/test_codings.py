"""Content codings: accepted labels, and bounded decoding."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import LimitExceeded, Malformed, OcifsError
from ocifs.oci.distribution.codings import codings, decoded


def labelled(label: str) -> dict[str, str]:
    return {"content-encoding": label}


@pytest.mark.parametrize(
    "label", ["", "identity", "aws-chunked", "utf-8", "binary", "none", "base64", "null", ","]
)
def test_a_label_that_is_not_a_coding_says_nothing(label: str) -> None:
    assert codings(labelled(label)) == frozenset()
    packed = gzip.compress(b"x")
    assert decoded(labelled(label), packed, 100, "it") == packed


@pytest.mark.parametrize(
    "label", ["gzip", "x-gzip", "GZIP", "gzip, aws-chunked", "aws-chunked,gzip", " gzip "]
)
def test_gzip_is_decoded_and_what_only_says_so_is_not(label: str) -> None:
    assert codings(labelled(label))
    assert decoded(labelled(label), gzip.compress(b"{}"), 100, "it") == b"{}"
    assert decoded(labelled(label), b"{}", 100, "it") == b"{}"
    assert decoded(labelled(label), gzip.compress(b"{") + gzip.compress(b"}"), 100, "it") == b"{}"


@given(st.binary(max_size=2000), st.sampled_from([gzip.compress, zlib.compress]))
def test_what_was_packed_comes_back(data: bytes, pack) -> None:
    label = "gzip" if pack is gzip.compress else "deflate"
    assert decoded(labelled(label), pack(data), 2000, "it") == data


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(LimitExceeded):
        decoded(labelled("gzip"), bomb, 1000, "it")
    many = gzip.compress(b"x" * 600)
    with pytest.raises(LimitExceeded):
        decoded(labelled("gzip"), many * 2, 1000, "it")


@pytest.mark.parametrize("cut", [1, 5, 15])
def test_data_that_end_early_are_malformed(cut: int) -> None:
    with pytest.raises(Malformed):
        decoded(labelled("gzip"), gzip.compress(b"x" * 100)[:-cut], 1000, "it")


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "gzip, deflate", "x"]))
def test_any_body_is_decoded_or_refused(body: bytes, label: str) -> None:
    for data in (body, b"\x1f\x8b\x08" + body, b"x\x9c" + body):
        try:
            assert len(decoded(labelled(label), data, 1000, "it")) <= max(1000, len(data))
        except OcifsError as error:
            assert str(error).startswith("it")
