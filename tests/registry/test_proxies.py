"""Proxies from the environment: the hosts that use one, and the headers that it gets."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Unreachable, UsageError
from ocifs.registry.config.hosts_toml import parse as parse_hosts
from ocifs.registry.config.registries_conf import parse as parse_conf
from ocifs.registry.config.registries_conf import routes_for
from ocifs.registry.http.proxies import proxy_for
from ocifs.settings import Limits, NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.faults import fault_server, http, in_turn
from tests.support.nginx import Front, tls_front
from tests.support.proxy import proxy_to, socks_to
from tests.support.secrets import keep_secret

PASSWORD = keep_secret("s3cr3t-of-the-proxy", "me:s3cr3t-of-the-proxy")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    serve = 'return 200 \'{"tags": ["v1"]}\';'
    with tls_front(tmp_path_factory.mktemp("proxied"), trustme.CA(), serve) as front:
        yield front


@pytest.mark.servers
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
async def test_a_registry_with_tls_is_asked_through_a_tunnel(
    registry: Front, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with proxy_to(registry.host) as proxy:
        monkeypatch.setenv(variable, f"http://me:{PASSWORD}@{proxy.address}")
        network = NetworkSettings(ca_file=registry.ca)
        async with open_registry("registry.example", Settings(network=network)) as client:
            assert await client.tags("a/b") == ("v1",)
    credential = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert proxy.asked == [("CONNECT registry.example:443", credential)]
    assert "Basic" not in registry.asked()[-1]


async def test_a_registry_without_tls_is_asked_through_the_proxy_for_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        fault_server(in_turn(http(200, b'{"tags": ["v1"]}'))) as server,
        proxy_to(server.host) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.address)
        network = NetworkSettings(plain_http=frozenset({"registry.example:5000"}))
        async with open_registry("registry.example:5000", Settings(network=network)) as client:
            assert await client.tags("a/b") == ("v1",)
    assert [asked for asked, _ in proxy.asked] == [
        "GET http://registry.example:5000/v2/a/b/tags/list?n=1000"
    ]


async def test_this_machine_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        fault_server(in_turn(http(200, b'{"tags": ["v1"]}'))) as server,
        proxy_to(server.host) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.address)
        async with open_registry(server.host, Settings()) as client:
            assert await client.tags("a/b") == ("v1",)
    assert proxy.asked == []


async def test_a_proxy_that_is_not_there_is_unreachable_and_its_password_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with fault_server(in_turn(http(200))) as server:
        gone = server.host
    monkeypatch.setenv("https_proxy", f"http://me:{PASSWORD}@{gone}")
    async with open_registry("registry.example", Settings(limits=Limits(retries=1))) as client:
        with pytest.raises(Unreachable) as caught:
            await client.tags("a/b")
    assert PASSWORD not in f"{caught.value}{caught.value.hint}{caplog.text}"


@pytest.mark.parametrize(
    ("host", "environ", "proxy"),
    [
        ("r.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("r.example", {"https_proxy": "p:1"}, "http://p:1"),
        ("r.example", {"http_proxy": "p:1"}, None),
        ("r.example", {"all_proxy": "p:1", "no_proxy": "other.example"}, "http://p:1"),
        ("r.example", {"all_proxy": "p:1", "no_proxy": "r.example"}, None),
        ("r.example", {"all_proxy": "p:1", "no_proxy": ".example"}, None),
        ("r.example", {"all_proxy": "p:1", "no_proxy": "*"}, None),
        ("r.example", {"all_proxy": "p:1", "NO_PROXY": "example"}, None),
        ("127.0.0.1", {"all_proxy": "p:1"}, None),
        ("localhost", {"all_proxy": "p:1"}, None),
        ("r.example", {"https_proxy": ""}, None),
    ],
)
def test_the_environment_says_which_proxy(
    host: str, environ: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for("https", host, None, environ) == proxy


EXEMPT = {
    "10.9.9.0/24": ["10.9.9.1", "10.9.9.255"],
    "10.9.9.1/8": ["10.1.2.3"],
    "fd00::/8": ["[fd00::1]"],
    "10.9.9.1": ["10.9.9.1", "10.9.9.1:5000"],
    "10.9.9.1:5000": ["10.9.9.1:5000"],
    "::1,2001:db8::1": ["[2001:db8::1]"],
    "[2001:db8::1]": ["[2001:db8::1]", "[2001:0db8::1]:443"],
    "[2001:db8::1]:5000": ["[2001:db8::1]:5000"],
    "r.example": ["r.example", "a.r.example", "R.EXAMPLE", "r.example."],
    "r.example.": ["r.example", "a.r.example"],
    ".r.example": ["a.r.example", "r.example"],
    "*.r.example": ["a.r.example", "b.a.r.example"],
    "r.example:443": ["r.example", "r.example:443", "a.r.example"],
    "r.example:5000": ["r.example:5000"],
    "x, r.example\ty": ["r.example", "y"],
    "X,R.Example": ["r.example"],
}
ASKED_THROUGH = {
    "10.9.9.0/24": ["10.9.10.1", "10.9.9.1.example"],
    "10.9.9.1:5000": ["10.9.9.1", "10.9.9.1:443"],
    "9.9.1": ["10.9.9.1"],
    "r.example:5000": ["r.example", "r.example:443"],
    "r.example": ["ar.example", "example", "r.example.org"],
    "[2001:db8::1]:5000": ["[2001:db8::1]"],
    "10.9.9.0/99,a/b/c,[::,:,]": ["10.9.9.1", "r.example"],
    ".": ["r.example"],
    "": ["r.example"],
}


@pytest.mark.parametrize("table", [EXEMPT, ASKED_THROUGH], ids=["exempt", "asked through it"])
def test_no_proxy_has_names_addresses_networks_and_ports(table: dict[str, list[str]]) -> None:
    for no_proxy, hosts in table.items():
        for each in hosts:
            url = httpx.URL(f"https://{each}/")
            proxy = proxy_for(
                "https", url.host, url.port, {"all_proxy": "p:1", "no_proxy": no_proxy}
            )
            assert proxy == (None if table is EXEMPT else "http://p:1"), (no_proxy, each)


@given(
    st.text(alphabet="a1.:*/[], \t", max_size=30),
    st.sampled_from(["r.example", "10.9.9.1", "2001:db8::1"]),
)
def test_any_no_proxy_is_read(no_proxy: str, host: str) -> None:
    assert proxy_for("https", host, 5000, {"all_proxy": "p:1", "no_proxy": no_proxy}) in (
        None,
        "http://p:1",
    )


@pytest.mark.parametrize("login", ["", f"me:{PASSWORD}@"])
async def test_a_registry_is_asked_through_a_socks_proxy(
    registry: Front, monkeypatch, login: str
) -> None:
    with socks_to(registry.host, f"me:{PASSWORD}" if login else "") as proxy:
        for scheme in ("socks5", "socks5h"):
            monkeypatch.setenv("all_proxy", f"{scheme}://{login}{proxy.address}")
            async with open_registry(
                "registry.example", Settings(network=NetworkSettings(ca_file=registry.ca))
            ) as client:
                assert await client.tags("a/b") == ("v1",)
    assert proxy.asked == [("CONNECT registry.example:443", f"me:{PASSWORD}" if login else "")] * 2


@pytest.mark.parametrize("kind", ["registries.conf", "hosts.toml"])
async def test_a_registry_is_asked_through_the_socks_proxy_of_a_file(
    registry: Front, kind: str
) -> None:
    with socks_to(registry.host) as proxy:
        address = f"socks5://{proxy.address}"
        if kind == "hosts.toml":
            table = f'[host."https://registry.example"]\nproxy = "{address}"\n'
            site = parse_hosts(table, Path("/nowhere/hosts.toml"), "registry.example")[0].endpoint
        else:
            conf = parse_conf(
                f'[[registry]]\nlocation = "registry.example"\nproxy = "{address}"\n', "conf"
            )
            site = routes_for(conf, "registry.example", "a/b")[0].endpoint
        async with open_registry(
            site, Settings(network=NetworkSettings(ca_file=registry.ca))
        ) as client:
            assert await client.tags("a/b") == ("v1",)
    assert proxy.asked == [("CONNECT registry.example:443", "")]


def test_a_socks_proxy_without_the_extra_is_an_error_that_names_it() -> None:
    program = (
        "import sys; sys.modules['socksio'] = None\n"
        "from ocifs.registry.http.proxies import make_pool\n"
        "from ocifs.errors import UsageError\n"
        "try: make_pool(None, 'socks5://127.0.0.1:1', None, 1)\n"
        "except UsageError as error: print(error, error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "extra socks" in done.stdout and "ocifs-mount[socks]" in done.stdout


@pytest.mark.parametrize(
    "proxy", ["socks4://127.0.0.1:1", "ftp://127.0.0.1:1", "http://", "http://[", "socks5://"]
)
async def test_a_proxy_that_cannot_be_used_is_an_error_of_the_command(
    monkeypatch, proxy: str
) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    async with open_registry("registry.example", Settings()) as client:
        with pytest.raises(UsageError):
            await client.tags("a/b")
