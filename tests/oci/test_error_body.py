"""Error messages in the bodies of responses, in all formats of registries and token servers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.oci.distribution.error_body import LENGTH, error_text

JSON = [
    ({"errors": [{"code": "DENIED", "message": "no"}]}, "DENIED: no"),
    ({"errors": [{"code": "DENIED", "message": None}]}, "DENIED"),
    (
        {"errors": [{"code": "DENIED", "message": None, "detail": {"reason": "quota"}}]},
        "DENIED: quota",
    ),
    ({"errors": [{"code": "DENIED"}]}, "DENIED"),
    ({"errors": [{"message": "no"}]}, "no"),
    ({"errors": [{"code": "A", "message": "A"}]}, "A"),
    ({"errors": [{"code": "A", "message": "a"}, {"code": "B", "message": "b"}]}, "A: a; B: b"),
    (
        {"errors": [{"code": "UNAUTHORIZED", "message": "m", "detail": [{"Type": "repository"}]}]},
        "UNAUTHORIZED: m",
    ),
    ({"errors": "token expired"}, "token expired"),
    ({"errors": ["token expired", 7, None]}, "token expired"),
    ({"errors": {"code": "X", "message": "y"}}, "X: y"),
    ({"details": "You have reached your pull rate limit"}, "You have reached your pull rate limit"),
    ({"detail": "object not found"}, "object not found"),
    ({"message": "quota exceeded"}, "quota exceeded"),
    ({"error": "invalid_grant", "error_description": "expired"}, "invalid_grant: expired"),
    ({"error": {"code": 403, "message": "billing is off"}}, "billing is off"),
    ({"title": "Forbidden", "status": 403, "detail": "blocked"}, "Forbidden: blocked"),
    ({"status": 500, "error": "Internal", "message": "disk", "path": "/v2/"}, "Internal: disk"),
    ("just text", "just text"),
    ([{"code": "X"}], "X"),
    ({"errors": [{"code": " ", "message": ""}]}, ""),
    ({"errors": 7}, ""),
    ({}, ""),
    (None, ""),
    (True, ""),
]


@pytest.mark.parametrize(("value", "words"), JSON, ids=lambda value: json.dumps(value)[:50])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html", ""])
def test_every_form_of_json_is_read_whatever_its_type(value: object, words: str, kind: str) -> None:
    assert error_text({"content-type": kind}, json.dumps(value).encode()) == words


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (
            "text/plain",
            b"Your token has expired.\r\nLog in again.\n",
            "Your token has expired. Log in again.",
        ),
        ("text/plain; charset=utf-8", b"404 page not found\n", "404 page not found"),
        ("Text/Plain", b"no", "no"),
        ("", b"no", "no"),
        ("text/plain", "zu viel \N{LATIN SMALL LETTER U WITH DIAERESIS}".encode(), "zu viel \xfc"),
        ("text/plain", b"\xff\xfe", ""),
        ("text/plain", b"a\x1b[31mb", "a [31mb"),
        ("text/plain", b"<html>", ""),
        ("text/html", b"no", ""),
        ("application/xml", b"<Error/>", ""),
        ("application/octet-stream", b"no", ""),
        ("application/json", b"{cut", ""),
        ("text/plain", b"[" * 9999, ""),
    ],
)
def test_plain_text_is_repeated_and_a_page_is_not(kind: str, body: bytes, words: str) -> None:
    assert error_text({"content-type": kind}, body) == words


MEMBERS = st.sampled_from(["errors", "code", "message", "detail", "error", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(MEMBERS, inner),
)


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_body_gives_one_bounded_line(body: bytes) -> None:
    words = error_text({}, body)
    assert len(words) <= LENGTH
    assert words.isprintable()
