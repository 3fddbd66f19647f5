"""The meaning of a registry's responses."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import AccessDenied, Malformed, NotFound, OcifsError, RateLimited, RegistryFailed
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import responses

URL = "https://registry.example/v2/a/tags/list?n=1000"
DIGEST = Digest.of(b"manifest")
ANY_TEXT = st.text() | st.from_regex(
    r"(bytes )?[0-9²٣-]{1,40}(/[0-9²*]{1,20})?|\d{4400,4500}|<[^>]{0,20}>; rel=next"
)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', "/v2/a/tags/list?n=2&last=b"),
        ('<list?last=b>; rel="next"', "/v2/a/tags/list?last=b"),
        ("<https://registry.example/v2/a/tags/list?last=b>; rel=next", "/v2/a/tags/list?last=b"),
        ("</v2/a/tags/list>; REL=Next", "/v2/a/tags/list"),
        ('</first>; rel="prev", </second?x=1>; rel="next"', "/second?x=1"),
        ('</v2/a/tags/list?last=a,b>; type="x"; rel="next"', "/v2/a/tags/list?last=a,b"),
        ('</first>; rel="prev"', None),
        ("", None),
        ('/v2/a/tags/list?last=b; rel="next"', "/v2/a/tags/list?last=b"),
        ("/v2/a/tags/list?last=b", "/v2/a/tags/list?last=b"),
        ("</v2/a/tags/list?last=b>", "/v2/a/tags/list?last=b"),
        ("</v2/a/tags/list?last=b; rel=next", "/v2/a/tags/list?last=b"),
        ("</a?x>; rel='next'", "/a?x"),
        ('</a?x>; rel="prev next last"', "/a?x"),
        ('</a?x>; rel = "next"; title="</b>; rel=next"', "/a?x"),
        ('</a?x>; title="say \\"hi\\", <b>"; rel="next"', "/a?x"),
        ('</b>; rel="prev" , </a?x>;rel=next', "/a?x"),
        ("</b>; rel=prev, /a?x; rel=next", "/a?x"),
        ('</a?x>; rel="next', "/a?x"),
        ("<https://REGISTRY.example:443/a?x>; rel=next", "/a?x"),
        ("<http://registry.example/a?x>; rel=next", "/a?x"),
        ("<http://registry.example:80/a?x>; rel=next", "/a?x"),
        ("<https://elsewhere.example/style.css>; as=style", None),
    ],
)
def test_the_next_page_is_where_the_link_says(link: str, target: str | None) -> None:
    assert responses.next_page(URL, {"link": link}) == target


def test_no_link_is_the_last_page() -> None:
    assert responses.next_page(URL, {}) is None


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/x",
        "http://registry.example:5000/x",
        "//evil.example/x",
        "https://registry.example:444/x",
    ],
)
def test_a_next_page_on_another_host_is_refused(elsewhere: str) -> None:
    with pytest.raises(Malformed, match="another host"):
        responses.next_page(URL, {"link": f'<{elsewhere}>; rel="next"'})


def test_a_next_page_that_is_no_address_is_refused() -> None:
    with pytest.raises(Malformed):
        responses.next_page(URL, {"link": '<http://[half/x>; rel="next"'})


@pytest.mark.parametrize(
    "link", [";", ",,", "<>; rel=next", "<" * 8193, "</a>; rel=next;" + " " * 9000]
)
def test_a_link_that_cannot_be_read_is_malformed_and_not_the_last_page(link: str) -> None:
    with pytest.raises(Malformed):
        responses.next_page(URL, {"link": link})


def test_a_part_is_what_its_content_range_says() -> None:
    assert responses.read_range(
        206, {"content-range": "bytes 10-19/100"}, 10
    ) == responses.ResponseRange(10, 20, 100)
    assert responses.read_range(
        206, {"content-range": "bytes 10-19/*"}, 10
    ) == responses.ResponseRange(10, 20, None)
    for text in (
        "Bytes: 10-19/100",
        "bytes=10-19/100",
        "10-19/100",
        "bytes  10 - 19 / 100",
        "bytes" + " " * 8000 + "10-19/100",
    ):
        assert responses.read_range(206, {"content-range": text}, 10) == responses.ResponseRange(
            10, 20, 100
        )
    assert responses.read_range(
        206, {"content-range": "bytes 10-19"}, 10
    ) == responses.ResponseRange(10, 20, None)
    assert responses.read_size(416, {"content-range": "bytes */100"}) == 100


def test_a_200_is_the_whole_whatever_was_asked_for() -> None:
    assert responses.read_range(200, {"content-length": "100"}, 50) == responses.ResponseRange(
        0, 100, 100
    )
    assert responses.read_range(200, {}, 50) == responses.ResponseRange(0, None, None)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes 0-9/100",
        "bytes 10-9/100",
        "bytes */100",
        "items 10-19/100",
        "bytes 11-19/100",
        "bytes 10-19/x",
        "bytes" + " " * 9000 + "10-19/100",
    ],
)
def test_a_part_that_was_not_asked_for_is_malformed(value: str) -> None:
    with pytest.raises(Malformed):
        responses.read_range(206, {"content-range": value}, 10)


def test_a_head_tells_digest_type_and_size() -> None:
    headers = {
        "docker-content-digest": str(DIGEST),
        "content-length": "7",
        "content-type": "application/x",
    }
    descriptor = responses.read_head(headers)
    assert descriptor is not None
    assert (descriptor.digest, descriptor.size, descriptor.media_type) == (
        DIGEST,
        7,
        "application/x",
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "7"},
        {"docker-content-digest": str(DIGEST)},
        {"docker-content-digest": "sha256:short", "content-length": "7"},
        {"docker-content-digest": str(DIGEST), "content-length": "²"},
        {"docker-content-digest": str(DIGEST), "content-length": "-7"},
    ],
)
def test_a_head_that_leaves_something_out_tells_nothing(headers: dict[str, str]) -> None:
    assert responses.read_head(headers) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFound),
        (401, AccessDenied),
        (403, AccessDenied),
        (429, RateLimited),
        *(
            (status, RegistryFailed)
            for status in (400, 405, 408, 410, 416, 418, 500, 502, 503, 504)
        ),
    ],
)
def test_the_status_decides_the_error(status: int, kind: type[OcifsError]) -> None:
    body = b'{"errors": [{"code": "NAME_UNKNOWN", "message": "not\\u001b[31m known"}]}'
    error = responses.error_of(status, {}, body, "host/v2/a", 0)
    assert type(error) is kind
    assert str(status) in str(error)
    assert "NAME_UNKNOWN: not [31m known" in str(error)


@pytest.mark.parametrize(
    "body",
    [b"<html>gateway</html>", b"", b"\xff\xfe", b'{"errors": 7}', b'{"errors": [7]}', b"[" * 9999],
)
def test_bodies_of_errors_need_not_be_what_they_should(body: bytes) -> None:
    assert (
        str(responses.error_of(502, {}, body, "host: the registry", 0))
        == "host: the registry answered 502"
    )


def test_a_registrys_own_words_are_cut() -> None:
    body = json.dumps({"errors": [{"code": "X", "message": "y" * 10_000}]}).encode()
    assert len(str(responses.error_of(500, {}, body, "host: the registry", 0))) < 300


def test_a_warning_is_read_in_its_quotes() -> None:
    text = '199 - "old", 299 - "say \\"hi\\", twice", 299 - "two" "Mon", 299 x, 299 - "three'
    assert responses.warnings({"warning": text}) == ['say "hi", twice', "two", "three"]


def test_retry_after_is_seconds_or_a_date() -> None:
    assert responses.retry_after({"retry-after": " 120 "}, 0) == 120
    assert (
        responses.retry_after({"retry-after": formatdate(1_000_060, usegmt=True)}, 1_000_000) == 60
    )
    assert responses.retry_after({"retry-after": formatdate(999_000, usegmt=True)}, 1_000_000) == 0
    error = responses.error_of(429, {"retry-after": "7"}, b"", "host: the registry", 0)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "²", "1e9", "9" * 19, "9" * 5000, "Mon, 99 Foo 2026"]
)
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
    assert responses.retry_after({"retry-after": text}, 0) is None


@given(ANY_TEXT, ANY_TEXT, st.sampled_from([200, 206]), st.binary())
def test_any_header_gives_a_value_or_an_error_of_ours(
    text: str, other: str, status: int, body: bytes
) -> None:
    headers = {"link": text, "content-range": text, "content-length": other, "retry-after": text}
    for question in (
        lambda: responses.next_page(URL, headers),
        lambda: responses.read_range(status, headers, 0),
        lambda: responses.read_head({"docker-content-digest": str(DIGEST), "content-length": text}),
    ):
        try:
            question()
        except OcifsError:
            pass
    responses.retry_after(headers, 0)
    responses.error_of(429, headers, body, "host: the registry", 0)
