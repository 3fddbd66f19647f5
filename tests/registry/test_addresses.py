"""The addresses that a registry elsewhere may redirect to, as written and as resolved."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ocifs.content import Blob
from ocifs.errors import AccessDenied, OcifsError
from ocifs.oci.digest import Digest
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.http.addresses import NetworkZone, is_inner, is_own, zone_of, zone_of_address
from ocifs.registry.http.origins import origin_in
from ocifs.registry.http.tls import TlsConfig
from ocifs.registry.http.transport import make_client, send
from ocifs.settings import Limits, NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.faults import Reply, Request, fault_server, http

METADATA = [
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "100.96.0.96",
    "169.254.170.2",
]
METADATA_IPV6 = [
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
]
FORMS = {
    "mapped": "::ffff:{}",
    "compatible": "::{}",
    "translated": "::ffff:0:{}",
    "nat64": "64:ff9b::{}",
    "local nat64": "64:ff9b:1::{}",
    "isatap": "2001:db8::5efe:{}",
    "isatap, global": "2001:db8::200:5efe:{}",
}


def _in_6to4(address: str) -> str:
    high, low = divmod(int(ipaddress.IPv4Address(address)), 1 << 16)
    return f"2002:{high:x}:{low:x}::1"


def _in_teredo(address: str) -> str:
    high, low = divmod(int(ipaddress.IPv4Address(address)) ^ 0xFFFFFFFF, 1 << 16)
    return f"2001:0:c633:6401:0:0:{high:x}:{low:x}"


def _in_nat64(address: str, length: int) -> str:
    """In the local prefix made so long (RFC 6052, 2.2, with bits 64 to 71 zero)."""
    number = int(ipaddress.IPv4Address(address))
    before = 64 - length
    bits = (number >> (32 - before) << 64 if before else 0) | (
        number & ((1 << (32 - before)) - 1)
    ) << (24 + before)
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b:1:0:0:0:0:0")) | bits))


@pytest.mark.parametrize("address", METADATA + METADATA_IPV6)
def test_metadata_services_of_every_cloud_are_known(address: str) -> None:
    assert zone_of(f"[{address}]" if ":" in address else address) is NetworkZone.METADATA


@pytest.mark.parametrize(
    "name", ["metadata.google.internal", "Metadata.Google.Internal.", "metadata", "instance-data"]
)
def test_names_of_metadata_services_are_known(name: str) -> None:
    assert zone_of(name) is NetworkZone.METADATA


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.7.7", *METADATA])
def test_an_ipv4_address_in_an_ipv6_one_counts_as_itself(form: str, address: str) -> None:
    assert zone_of(f"[{form.format(address)}]") is zone_of(address) is not NetworkZone.OUTSIDE
    for tunnelled in (
        _in_6to4(address),
        _in_teredo(address),
        *(_in_nat64(address, n) for n in (48, 56, 64)),
    ):
        assert zone_of(f"[{tunnelled}]") is zone_of(address)


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("0.0.0.0", NetworkZone.MACHINE),
        ("0.1.2.3", NetworkZone.MACHINE),
        ("127.255.0.1", NetworkZone.MACHINE),
        ("[::]", NetworkZone.MACHINE),
        ("[::1]", NetworkZone.MACHINE),
        ("0x7f.1", NetworkZone.MACHINE),
        ("017700000001", NetworkZone.MACHINE),
        ("2852039166", NetworkZone.METADATA),
        ("0xa9.0xfe.0xa9.0xfe", NetworkZone.METADATA),
        ("[fe80::1]", NetworkZone.LINK),
        ("[fe80::1%25eth0]", NetworkZone.LINK),
        ("169.254.1.1", NetworkZone.LINK),
        ("10.0.0.1", NetworkZone.OUTSIDE),
        ("192.168.0.1", NetworkZone.OUTSIDE),
        ("100.64.0.1", NetworkZone.OUTSIDE),
        ("[fd12:3456::1]", NetworkZone.OUTSIDE),
        ("[64:ff9b::808:808]", NetworkZone.OUTSIDE),
        ("[64:ff9b:1::808:808]", NetworkZone.OUTSIDE),
        ("[2606:4700::1111]", NetworkZone.OUTSIDE),
        ("registry.example.com", NetworkZone.OUTSIDE),
    ],
)
def test_each_address_has_its_zone(host: str, zone: NetworkZone) -> None:
    assert zone_of(host) is zone
    if zone is not NetworkZone.METADATA:
        assert is_inner(host) is (zone is not NetworkZone.OUTSIDE)


@given(
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
    | st.text()
)
def test_any_host_has_a_zone(host: str) -> None:
    assert isinstance(zone_of(host), NetworkZone)


def _own_addresses() -> list[str]:
    """Addresses of this machine other than loopback, as far as its name leads to any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # sends nothing: the kernel chooses the address of the interface
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def test_an_address_of_an_interface_is_this_machine() -> None:
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert not is_own(ipaddress.ip_address("192.0.2.1"))
    assert not is_own(ipaddress.ip_address("2001:db8::1"))
    for address in _own_addresses():
        assert zone_of(address) is NetworkZone.OUTSIDE
        assert zone_of_address(address) is NetworkZone.OWN
        assert zone_of_address(f"::ffff:{address}") is NetworkZone.OWN


class _Names(trio.abc.HostnameResolver):
    """Names of a test, each with its addresses."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._addresses = addresses

    async def getaddrinfo(  # type: ignore[override]
        self, host: bytes, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[object, ...]]:
        address = self._addresses[host.decode()]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        where: tuple[object, ...] = (address, port, 0, 0) if ":" in address else (address, port)
        return [(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@contextmanager
def names(**addresses: str) -> Iterator[None]:
    """Let names of the domain test.example mean these addresses. To be used within trio.run."""
    before = trio.socket.set_custom_hostname_resolver(
        _Names({f"{name}.test.example": address for name, address in addresses.items()})
    )
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(before)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "::1"]
)
async def test_a_name_that_resolves_to_an_inner_address_is_not_connected_to(address: str) -> None:
    network = NetworkSettings()
    client = make_client(
        origin_in("https://registry.example.com"),
        TlsConfig(network, Endpoint("registry.example.com")),
        1,
        Settings().timing,
    )
    async with client:
        with names(cdn=address), pytest.raises(AccessDenied, match="redirects to"):
            await send(client, "GET", "http://cdn.test.example:9/", {})
        for own in _own_addresses():
            with pytest.raises(AccessDenied, match="this machine"):
                await send(client, "GET", f"http://{own}:9/", {})


async def test_a_registry_on_an_interface_of_this_machine_may_lead_to_its_storage_there() -> None:
    own = next(iter(_own_addresses()), None)
    if own is None:
        pytest.skip("this machine has no address other than loopback")
    data = b"x" * 100
    blob = Blob("a/b", Digest.of(data), len(data))
    with fault_server(lambda request: http(200, data), address=own) as storage:
        port = storage.listener.getsockname()[1]

        def lead(request: Request) -> Reply:
            return http(307, location=f"http://storage.test.example:{port}/blob")

        with fault_server(lead, address=own) as server, names(registry=own, storage=own):
            host = f"registry.test.example:{server.listener.getsockname()[1]}"
            settings = Settings(
                network=NetworkSettings(plain_http=frozenset({host})), limits=Limits(retries=1)
            )
            async with (
                open_registry(host, settings) as client,
                client.open_blob(blob, 0, len(data)) as stream,
            ):
                assert b"".join([piece async for piece in stream]) == data
        assert len(storage.requests) == 1


@pytest.mark.parametrize(
    "zone", ["169.254.169.254", "[fd20:ce::254]", "100.100.100.200", "[fe80::1]"]
)
async def test_a_registry_on_this_machine_does_not_lead_to_a_metadata_service(zone: str) -> None:
    blob = Blob("a/b", Digest.of(b"x"), 1)
    with fault_server(lambda request: http(307, location=f"http://{zone}/latest")) as server:
        async with open_registry(server.host, Settings(limits=Limits(retries=1))) as client:
            with pytest.raises(OcifsError, match="redirects to"):
                async with client.open_blob(blob, 0, 1):
                    pass
