"""WWW-Authenticate and tokens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Malformed, OcifsError
from ocifs.oci.distribution.challenge import DEFAULT_EXPIRY, Challenge, parse_challenges, read_token
from ocifs.oci.distribution.headers import HEADER_BYTES


def test_dockers_challenge_is_read() -> None:
    header = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
    expected = {
        "realm": "https://auth.docker.io/token",
        "service": "registry.docker.io",
        "scope": "repository:a/b:pull,push",
    }
    assert parse_challenges(header) == [Challenge("bearer", expected)]


def test_several_challenges_keep_their_order_and_their_parameters() -> None:
    header = 'Basic realm="a, b", Bearer Realm = "https://x/t" , SERVICE=plain, Negotiate'
    assert parse_challenges(header) == [
        Challenge("basic", {"realm": "a, b"}),
        Challenge("bearer", {"realm": "https://x/t", "service": "plain"}),
        Challenge("negotiate", {}),
    ]


def test_quotes_within_quotes_are_unescaped() -> None:
    assert parse_challenges(r'Basic realm="say \"hi\", \\ Bearer x=\"y\""') == [
        Challenge("basic", {"realm": 'say "hi", \\ Bearer x="y"'})
    ]


@pytest.mark.parametrize("header", ["", "   ", ",", "=", '"', 'realm="x"'])
def test_what_is_no_challenge_offers_nothing(header: str) -> None:
    assert parse_challenges(header) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Basic realm="r", Bearer realm="https://x/t',
            [("basic", {"realm": "r"}), ("bearer", {"realm": "https://x/t"})],
        ),
        (
            "Bearer realm='https://x/t',scope='a,b'",
            [("bearer", {"realm": "https://x/t", "scope": "a,b"})],
        ),
        (
            'Bearer realm="https://x/t";service="s"',
            [("bearer", {"realm": "https://x/t", "service": "s"})],
        ),
        ('Negotiate YII/ab+c==, Basic realm="r"', [("negotiate", {}), ("basic", {"realm": "r"})]),
        ('@ Bearer realm="https://x/t"', [("bearer", {"realm": "https://x/t"})]),
        ("Bearer" + " " * 8000 + "@", [("bearer", {})]),
    ],
)
def test_challenges_that_break_the_grammar_are_read(
    header: str, expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert parse_challenges(header) == [
        Challenge(scheme, parameters) for scheme, parameters in expected
    ]


def test_a_challenge_longer_than_the_bound_is_malformed() -> None:
    assert parse_challenges("Basic" + " " * (HEADER_BYTES - 5))
    with pytest.raises(Malformed, match="www-authenticate"):
        parse_challenges("Basic" + " " * (HEADER_BYTES - 4))


@given(st.text() | st.text(alphabet='Bearer ="\\,'))
def test_any_header_is_a_list_of_challenges(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_value_comes_through_its_quotes(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_challenges(f'Bearer realm="{quoted}"') == [Challenge("bearer", {"realm": value})]


def test_a_token_is_read_under_either_name() -> None:
    assert read_token(b'{"token": "abc", "expires_in": 300}').value == "abc"
    assert read_token(b'{"access_token": "abc", "token": ""}').value == "abc"
    assert read_token(b'{"token": "abc", "expires_in": 300}').expires_in == 300


@pytest.mark.parametrize("expires", [None, 0, -5, "300", True, 1e300, [], {}])
def test_an_expiry_that_is_none_is_the_default(expires: object) -> None:
    assert (
        read_token(json.dumps({"token": "t", "expires_in": expires}).encode()).expires_in
        == DEFAULT_EXPIRY
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 7}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": ""}',
        '{"token": "é"}'.encode(),
    ],
)
def test_an_answer_without_a_token_that_can_be_sent_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_token(body)


def test_a_tokens_value_is_in_no_repr() -> None:
    assert "geheim" not in repr(read_token(b'{"token": "geheim"}'))


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["token", "expires_in"]), st.integers() | st.text() | st.floats()
    ).map(lambda d: json.dumps(d).encode())
)
def test_any_answer_is_a_token_or_malformed(body: bytes) -> None:
    try:
        token = read_token(body)
    except OcifsError:
        return
    assert token.value.isascii()
    assert 0 < token.expires_in < 10**7
