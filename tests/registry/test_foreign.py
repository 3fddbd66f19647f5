"""Requests to hosts other than the registry.

For each guard there is a host that records its requests. The test fails without the guard.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from ocifs.content import Blob
from ocifs.errors import AccessDenied, Malformed, OcifsError, RegistryFailed
from ocifs.oci.digest import Digest
from ocifs.settings import Limits, NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Reply, Request, fault_server, http, in_turn
from tests.support.nginx import before, tls_front
from tests.support.proxy import proxy_to
from tests.support.secrets import keep_secret

SECRET = keep_secret("s3cr3t-for-the-registry", "me:s3cr3t-for-the-registry")
CONTENT = b"0123456789"
BLOB = Blob("a/b", Digest.of(CONTENT), len(CONTENT))
TAGS = http(200, b'{"tags": ["v1"]}')
ONCE = Settings(limits=Limits(retries=1))


@pytest.fixture
def storage() -> Iterator[FaultServer]:
    with fault_server(in_turn(http(200, CONTENT))) as server:
        yield server


def log_in(home: Path, host: str) -> None:
    packed = base64.b64encode(f"me:{SECRET}".encode()).decode()
    (home / "config.json").write_text(json.dumps({"auths": {host: {"auth": packed}}}))


async def read(host: str, settings: Settings = ONCE) -> bytes:
    async with open_registry(host, settings) as client:
        async with client.open_blob(BLOB, 0, len(CONTENT)) as stream:
            return b"".join([piece async for piece in stream])


async def test_neither_authorization_nor_cookies_reach_another_host(
    storage: FaultServer, nobodys_home: Path
) -> None:
    def handler(request: Request) -> Reply:
        if "authorization" not in request.headers:
            return http(401, www_authenticate='Basic realm="x"', set_cookie="session=abc; Path=/")
        place = f"http://{storage.host}/signed"
        return http(307, location=place, set_cookie="session=abc; Path=/")

    with fault_server(handler) as server:
        log_in(nobodys_home, server.host)
        assert await read(server.host) == CONTENT
    assert "authorization" in server.requests[-1].headers
    for request in (
        *storage.requests,
        *server.requests,
    ):  # a cookie of 127.0.0.1 would be one of every port there
        assert "cookie" not in request.headers
    assert [sorted(request.headers) for request in storage.requests] == [
        ["accept", "accept-encoding", "connection", "host", "user-agent"]
    ]


async def test_a_challenge_of_another_host_is_not_answered(nobodys_home: Path) -> None:
    with fault_server(lambda request: http(401, www_authenticate='Basic realm="x"')) as foreign:
        with fault_server(in_turn(http(307, location=f"http://{foreign.host}/x"))) as server:
            log_in(nobodys_home, server.host)
            with pytest.raises(RegistryFailed):
                await read(server.host)
            assert len(server.requests) == 1
    assert all("authorization" not in request.headers for request in foreign.requests)
    assert len(foreign.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_a_storage_host_says_is_neither_absence_nor_refusal(status: int) -> None:
    with fault_server(in_turn(http(status))) as foreign:
        with fault_server(in_turn(http(307, location=f"http://{foreign.host}/x"))) as server:
            with pytest.raises(OcifsError) as caught:
                await read(server.host)
    assert type(caught.value) is RegistryFailed


async def test_the_next_page_of_a_list_is_not_asked_of_another_host(storage: FaultServer) -> None:
    page = http(
        200,
        b'{"tags": ["v1"]}',
        link=f'<http://{storage.host}/v2/a/b/tags/list?last=v1>; rel="next"',
    )
    with fault_server(in_turn(page)) as server:
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(Malformed, match="another host"):
                await client.tags("a/b")
    assert storage.requests == []


async def test_a_token_is_not_asked_for_at_a_place_without_tls(
    nobodys_home: Path, storage: FaultServer
) -> None:
    elsewhere = storage.host.replace(
        "127.0.0.1", "192.0.2.1"
    )  # another host (RFC 5737), where nothing listens
    with fault_server(
        in_turn(http(401, www_authenticate=f'Bearer realm="http://{elsewhere}/token"'))
    ) as server:
        log_in(nobodys_home, server.host)
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(AccessDenied, match="without TLS"):
                await client.tags("a/b")


REDIRECTS = {
    "to http": "http://cdn.example/blob",
    "to this machine": "https://127.0.0.1:1/blob",
    "to its link": "https://169.254.169.254/latest/meta-data",
    "in another spelling": "https://2130706433/blob",
}


@pytest.mark.servers
@pytest.mark.parametrize("location", REDIRECTS.values(), ids=REDIRECTS)
async def test_a_registry_elsewhere_leads_neither_to_this_machine_nor_away_from_tls(
    location: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry has a name that is not this machine's: a proxy leads to it."""
    with fault_server(in_turn(http(307, location=location))) as server:
        with (
            tls_front(nobodys_home / "tls", trustme.CA(), before(server.host)) as front,
            proxy_to(front.host) as proxy,
        ):
            monkeypatch.setenv("https_proxy", proxy.address)
            monkeypatch.setenv("http_proxy", proxy.address)
            settings = Settings(limits=Limits(retries=1), network=NetworkSettings(ca_file=front.ca))
            with pytest.raises(Malformed, match="redirects to"):
                await read("registry.example", settings)
    assert [asked for asked, _ in proxy.asked] == ["CONNECT registry.example:443"]


@pytest.mark.servers
@pytest.mark.parametrize(
    "realm",
    [
        "http://registry.example/token",
        "https://127.0.0.1:1/token",
        "https://169.254.169.254/",
        "https://0x7f.1/",
    ],
)
async def test_a_registry_elsewhere_has_no_token_server_on_this_machine_or_without_tls(
    realm: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_server(
        in_turn(http(401, www_authenticate=f'Bearer realm="{realm}",service="x"'))
    ) as server:
        log_in(nobodys_home, "registry.example")
        with (
            tls_front(nobodys_home / "tls", trustme.CA(), before(server.host)) as front,
            proxy_to(front.host) as proxy,
        ):
            monkeypatch.setenv("https_proxy", proxy.address)
            monkeypatch.setenv("http_proxy", proxy.address)
            settings = Settings(limits=Limits(retries=1), network=NetworkSettings(ca_file=front.ca))
            async with open_registry("registry.example", settings) as client:
                with pytest.raises(AccessDenied, match="names a token server"):
                    await client.tags("a/b")
    assert [asked for asked, _ in proxy.asked] == ["CONNECT registry.example:443"]


class HereWhateverTheName(trio.abc.HostnameResolver):
    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


async def test_a_name_that_turns_out_to_be_this_machine_is_not_connected_to(
    storage: FaultServer,
) -> None:
    """A registry elsewhere, as its name has it, redirects to a name of its own choice, whose
    address is ours (DNS rebinding).
    """
    trio.socket.set_custom_hostname_resolver(HereWhateverTheName())
    port = storage.host.partition(":")[2]
    with fault_server(in_turn(http(307, location=f"http://rebound.example:{port}/x"))) as server:
        name = f"registry.example:{server.host.partition(':')[2]}"
        settings = Settings(
            limits=Limits(retries=1), network=NetworkSettings(plain_http=frozenset({name}))
        )
        with pytest.raises(AccessDenied, match="address of this machine"):
            await read(name, settings)
        assert len(server.requests) == 1
    assert storage.requests == []
