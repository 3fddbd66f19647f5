"""containerd's hosts.toml: the rows of its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import UsageError
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.config.hosts_toml import HostEntry, directories_of, load, parse

FILE = Path("/certs.d/docker.io/hosts.toml")


def read(text: str, host: str = "docker.io") -> list[HostEntry]:
    return list(parse(text, FILE, host))


def test_hosts_are_asked_in_their_order_and_the_server_last() -> None:
    mirror, private, own = read(
        'server = "https://registry-1.docker.io"\n'
        '[host."https://public-mirror.example.com"]\ncapabilities = ["pull"]\n'
        '[host."https://docker-mirror.internal"]\n'
        'capabilities = ["pull", "resolve"]\nca = "docker-mirror.crt"\n'
    )
    assert (mirror.endpoint.host, mirror.by_tag, mirror.by_digest, mirror.own) == (
        "public-mirror.example.com",
        False,
        True,
        False,
    )
    assert private.endpoint.authorities == (FILE.parent / "docker-mirror.crt",)
    assert (private.by_tag, private.by_digest) == (True, True)
    assert (own.endpoint, own.own) == (Endpoint("docker.io"), True)


def test_without_a_server_it_is_the_registry_itself() -> None:
    assert [
        (each.endpoint.host, each.own)
        for each in read('[host."https://m.example"]', "r.example:5000")
    ] == [
        ("m.example", False),
        ("r.example:5000", True),
    ]


def test_with_another_server_nobody_asks_the_registry() -> None:
    (only,) = read('server = "https://registry.example.com"')
    assert (only.endpoint.host, only.endpoint.scheme, only.own, only.endpoint.namespace) == (
        "registry.example.com",
        "https",
        True,
        "docker.io",
    )


@pytest.mark.parametrize(
    ("url", "more", "root"),
    [
        ("https://m.example", "", "/v2"),
        ("https://m.example/", "", "/v2"),
        ("https://m.example/v2", "", "/v2"),
        ("https://m.example/proxy", "", "/proxy/v2"),
        ("https://m.example/v2/proxy", "override_path = true", "/v2/proxy"),
        ("https://m.example", "override_path = true", ""),
        ("m.example/proxy", "", "/proxy/v2"),
    ],
)
def test_paths(url: str, more: str, root: str) -> None:
    assert read(f'[host."{url}"]\n{more}')[0].endpoint.root == root


def test_another_host_is_told_for_which_registry_it_stands() -> None:
    site = read('[host."https://m.example/v2/hub"]\noverride_path = true')[0].endpoint
    assert (
        site.path_of("/v2/library/alpine/manifests/1")
        == "/v2/hub/library/alpine/manifests/1?ns=docker.io"
    )
    assert (
        site.path_of("/v2/library/alpine/tags/list?n=1")
        == "/v2/hub/library/alpine/tags/list?n=1&ns=docker.io"
    )
    own = read('server = "https://docker.io"')[0].endpoint
    assert own.path_of("/v2/") == "/v2/"


def test_http_with_settings_of_tls_is_tried_with_tls_first() -> None:
    sites = [
        each.endpoint for each in read('[host."http://192.168.31.250:5000"]\nskip_verify = true')
    ]
    assert [(each.scheme, each.unverified) for each in sites[:2]] == [
        ("https", True),
        ("http", False),
    ]
    assert [each.endpoint.scheme for each in read('[host."http://192.168.31.250:5000"]')] == [
        "http",
        "",
    ]


def test_certificates_headers_and_time() -> None:
    site = read(
        '[host."https://m.example"]\nca = ["a.pem", "/b.pem"]\n'
        'client = ["c.pem", ["d.cert", "d.key"], ["e.pem", ""]]\nskip_verify = true\n'
        'dial_timeout = "1m1s500ms"\nproxy = "http://p:1"\n'
        '[host."https://m.example".header]\nx-one = "1"\nx-two = ["a", "b"]\n'
    )[0].endpoint
    here = FILE.parent
    assert site.authorities == (here / "a.pem", Path("/b.pem"))
    assert site.identities == (
        (here / "c.pem", None),
        (here / "d.cert", here / "d.key"),
        (here / "e.pem", None),
    )
    assert (site.unverified, site.connect_timeout, site.proxy) == (True, 61.5, "http://p:1")
    assert site.headers == (("x-one", "1"), ("x-two", "a, b"))
    assert "x-one" not in repr(site)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[host", "hosts.toml: "),
        ("server = 1", "hosts.toml: server is not a string"),
        ('server = "ftp://x"', "hosts.toml: server"),
        (
            '[host."https://me:geheim@a.example"]',
            "host.https://…@a.example is not a registry address",
        ),
        ('[host."https://a.example"]\nproxy = "http://"', "proxy .* is not a proxy address"),
        ('[host."https://a b"]', "host.https://a b is not a registry address"),
        (
            '[host."https://a.example"]\ncapabilities = ["fly"]',
            r"host.https://a.example.capabilities has an unknown capability: .fly.",
        ),
        ('[host."https://a.example"]\ncapabilities = 7', "capabilities is not a list"),
        ('[host."https://a.example"]\nca = 7', "ca is not a list"),
        ('[host."https://a.example"]\nclient = [["a"]]', "client is neither"),
        ('[host."https://a.example"]\nclient = 7', "client is neither"),
        ('[host."https://a.example"]\nskip_verify = 1', "skip_verify is neither true nor false"),
        ('[host."https://a.example"]\ndial_timeout = "soon"', "dial_timeout"),
        ('[host."https://a.example".header]\n"a b" = "1"', "not a header name"),
        ('[host."https://a.example".header]\nx = "1\\r\\n2"', "not a header value"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("1000000us", 1),
        ("1000µs", 0.001),
        ("1000μs", 0.001),
        ("5ns", 5e-9),
        (".5s", 0.5),
        ("1.s", 1),
        ("1h2m3s4ms", 3723.004),
        ("0s", None),
        ("", None),
    ],
)
def test_durations_are_those_of_go(text: str, seconds: float | None) -> None:
    site = read(f'[host."https://m.example"]\ndial_timeout = "{text}"')[0].endpoint
    assert site.connect_timeout == (pytest.approx(seconds) if seconds else None)


@pytest.mark.parametrize(
    "text", ["1", "s", "1x", "-1s", "1 s", "1s,", "." * 40 + "s", "9" * 200 + "s"]
)
def test_a_duration_that_go_refuses_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        read(f'[host."https://m.example"]\ndial_timeout = "{text}"')


def test_an_empty_file_beside_certificates_is_as_if_it_were_absent(tmp_path: Path) -> None:
    """containerd falls back to the certificates of a directory whose hosts.toml has no bytes."""
    directory = tmp_path / "r.example"
    directory.mkdir()
    (directory / "ca.crt").write_text("x")
    without = load(tmp_path, "r.example")
    (directory / "hosts.toml").write_text("")
    assert load(tmp_path, "r.example") == without
    assert without[0].endpoint.authorities == (directory / "ca.crt",)


def test_directories_of_a_registry(tmp_path: Path) -> None:
    assert [each.name for each in directories_of(tmp_path, "r.example:5000")] == [
        "r.example_5000_",
        "r.example:5000",
        "_default",
    ]
    assert [each.name for each in directories_of(tmp_path, "r.example")] == [
        "r.example",
        "_default",
    ]
    assert load(tmp_path, "r.example") == ()
    for name in ("_default", "r.example:5000", "r.example_5000_"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.toml").write_text(
            f'[host."https://{name.strip("_").replace(":", "-").replace("_", "-under-")}.m"]'
        )
    assert load(tmp_path, "r.example:5000")[0].endpoint.host == "r.example-under-5000.m"
    assert load(tmp_path, "other.example")[0].endpoint.host == "default.m"


def test_certificates_without_a_hosts_toml_are_the_registrys(tmp_path: Path) -> None:
    (tmp_path / "r.example").mkdir()
    assert load(tmp_path, "r.example") == ()
    for name in ("a.crt", "b.cert", "b.key"):
        (tmp_path / "r.example" / name).write_text("")
    (own,) = load(tmp_path, "r.example")
    assert own.endpoint.authorities == (tmp_path / "r.example" / "a.crt",)
    assert own.endpoint.identities == (
        (tmp_path / "r.example" / "b.cert", tmp_path / "r.example" / "b.key"),
    )


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert read(text)[-1].own
    except UsageError as error:
        assert str(error).startswith(str(FILE))
