"""The addresses that a registry may redirect to, and the ones that it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import AccessDenied, Malformed, OcifsError
from ocifs.registry.http.addresses import NetworkZone, zone_of
from ocifs.registry.http.origins import (
    WebOrigin,
    check_realm,
    may_have_credentials,
    origin_in,
    redirect_target,
)

PUBLIC = origin_in("https://registry.example.com")
PLAIN = origin_in("http://registry.example.com:5000")
HERE = origin_in("http://127.0.0.1:5000")
INNER = [
    "localhost",
    "LocalHost.",
    "a.localhost",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",
    "169.254.169.254",
    "[fe80::1]",
]


@pytest.mark.parametrize("host", INNER)
def test_every_spelling_of_this_machine_is_known(host: str) -> None:
    assert zone_of(host) is not NetworkZone.OUTSIDE


@pytest.mark.parametrize(
    "host", ["example.com", "10.0.0.1", "localhost.example.com", "[2001:db8::1]", "127.example.com"]
)
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert zone_of(host) is NetworkZone.OUTSIDE


@pytest.mark.parametrize("host", INNER)
def test_a_registry_elsewhere_cannot_lead_to_this_machine(host: str) -> None:
    with pytest.raises(Malformed):
        redirect_target(PUBLIC, "https://registry.example.com/v2/", f"https://{host}/secret")
    with pytest.raises(OcifsError):
        check_realm(PUBLIC, f"https://{host}/token")


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        (PUBLIC, "https://auth.example.org/token", True),
        (PUBLIC, "https://registry.example.com:8443/token", True),
        (PLAIN, "http://registry.example.com:5000/token", True),
        (PLAIN, "https://registry.example.com:5001/token", True),
        (PLAIN, "http://registry.example.com:5001/token", False),
        (PLAIN, "http://registry.example.com/token", False),
        (HERE, "http://127.0.0.1:5001/token", False),
        (HERE, "http://localhost:5000/token", False),
    ],
)
def test_credentials_go_to_token_servers_with_tls_or_to_the_registry_itself(
    registry: WebOrigin, realm: str, allowed: bool
) -> None:
    assert may_have_credentials(registry, realm) is allowed


def test_a_registry_on_this_machine_may_stay_on_it() -> None:
    assert (
        redirect_target(HERE, "http://127.0.0.1:5000/v2/a", "http://localhost:9/x")
        == "http://localhost:9/x"
    )
    check_realm(HERE, "http://127.0.0.1:5001/token")
    check_realm(HERE, "http://localhost:5001/token")
    check_realm(HERE, "http://[::1]:5001/token")
    with pytest.raises(AccessDenied):
        check_realm(PLAIN, "http://localhost:5001/token")
    with pytest.raises(AccessDenied):
        check_realm(HERE, "http://auth.example.com/token")


def test_a_redirect_never_gives_up_tls() -> None:
    with pytest.raises(Malformed, match="TLS"):
        redirect_target(PUBLIC, "https://registry.example.com/v2/", "http://cdn.example.com/blob")
    assert redirect_target(
        PLAIN, "http://registry.example.com:5000/v2/", "http://cdn.example.com/b"
    )


def test_a_relative_redirect_stays_where_it_is() -> None:
    assert (
        redirect_target(PUBLIC, "https://cdn.example.com/a/b", "../c?d=e")
        == "https://cdn.example.com/c?d=e"
    )


@pytest.mark.parametrize(
    "realm", ["http://auth.example.com/token", "http://registry.example.com/token"]
)
def test_a_realm_without_tls_is_refused(realm: str) -> None:
    with pytest.raises(AccessDenied):
        check_realm(PUBLIC, realm)


def test_a_realm_may_be_elsewhere_over_tls_or_the_registry_itself() -> None:
    check_realm(PUBLIC, "https://auth.example.org/token")
    check_realm(PUBLIC, "https://registry.example.com:443/token")
    check_realm(PLAIN, "http://registry.example.com:5001/token")
    with pytest.raises(AccessDenied):
        check_realm(PLAIN, "http://elsewhere.example.com/token")


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "https://[", "https://a:99999999/", "gopher://x/"]
)
def test_what_is_no_address_of_the_web_is_malformed(place: str) -> None:
    with pytest.raises(Malformed):
        redirect_target(PUBLIC, "https://registry.example.com/v2/", place)
    with pytest.raises(Malformed):
        check_realm(PUBLIC, place)


def test_a_realm_has_a_host() -> None:
    with pytest.raises(Malformed):
        check_realm(PUBLIC, "https://")


def test_a_refusal_repeats_no_secret_of_an_address() -> None:
    with pytest.raises(Malformed) as caught:
        redirect_target(
            PUBLIC,
            "https://registry.example.com/",
            "http://user:hunter2@cdn.example.com/?sig=hunter2",
        )
    assert "hunter2" not in str(caught.value)


@given(st.text())
def test_any_text_gives_an_address_or_an_error_of_ours(text: str) -> None:
    for place in (text, f"https://{text}", f"//{text}"):
        for judge in (
            lambda p: redirect_target(PUBLIC, "https://registry.example.com/", p),
            lambda p: check_realm(PUBLIC, p),
        ):
            try:
                judge(place)
            except OcifsError:
                pass
