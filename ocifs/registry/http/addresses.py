"""Network zones, which decide the addresses that a registry may choose for this client (SSRF).

`origins` calls this module for redirects and realms, `sockets` and `transport` for addresses that a
name resolves to, all on the event loop. A registry may redirect to its own zone and to OUTSIDE.

- Every spelling that a resolver accepts is parsed (`127.1`, `2130706433`, `0x7f.1`).
- An IPv4 address inside an IPv6 one counts as itself: mapped, compatible, translated, NAT64, 6to4,
  Teredo, ISATAP.
- MACHINE contains the addresses that mean each machine to itself, such as loopback. A registry is
  in it only by its name or address, never because a name resolves to it.
- No packet is sent and no name is resolved. The kernel decides whether an address is this machine's
  own.
- Private addresses (RFC 1918, RFC 4193, RFC 6598) are OUTSIDE: see docs/decisions/0200.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class NetworkZone(Enum):
    """A part of the network."""

    OUTSIDE = "another machine"
    MACHINE = "an address of this machine"
    OWN = "an address of this machine's network interfaces"
    LINK = "a link-local address"
    METADATA = "a cloud's metadata service"


_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # nearly every cloud
        "169.254.169.253",  # AWS, its resolver
        "169.254.170.2",  # AWS ECS, credentials of a task
        "169.254.170.23",  # AWS EKS, credentials of a pod
        "169.254.42.42",  # Scaleway
        "169.254.0.23",  # Tencent
        "100.100.100.200",  # Alibaba
        "100.96.0.96",  # Volcengine
        "168.63.129.16",  # Azure, its wire server
        "192.0.0.192",  # Oracle, classic
        "fd00:ec2::254",  # AWS
        "fd00:ec2::253",  # AWS, its resolver
        "fd00:ec2::23",  # AWS EKS, credentials of a pod
        "fd20:ce::254",  # Google
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
# Names of these services, which a proxy would resolve.
_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)

_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")  # RFC 2765
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215; the prefix in it may be longer
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214: the upper half of an interface identifier
_NEVER_OURS = {4: "192.0.2.1", 6: "2001:db8::1"}  # documentation (RFC 5737, RFC 3849)
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def zone_of(host: str) -> NetworkZone:
    """The zone of a URL's host, by its name alone: a name that must be resolved is OUTSIDE."""
    name = _name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return NetworkZone.MACHINE
    if name in _METADATA_NAMES:
        return NetworkZone.METADATA
    address = parse_address(name)
    return NetworkZone.OUTSIDE if address is None else _zone(address)


def zone_of_address(text: str) -> NetworkZone:
    """The zone of an address to connect to, which is OWN for an address of this machine.

    Blocks for microseconds.
    """
    address = parse_address(_name(text))
    if address is None:
        return NetworkZone.OUTSIDE
    zone = _zone(address)
    if zone is NetworkZone.OUTSIDE and any(is_own(meaning) for meaning in _meanings(address)):
        return NetworkZone.OWN
    return zone


def is_inner(host: str) -> bool:
    """Whether a host is this machine or link-local, by its name alone."""
    address = parse_address(_name(host))
    if address is None:
        return zone_of(host) is NetworkZone.MACHINE
    return any(_is_reserved(meaning) or meaning.is_link_local for meaning in _meanings(address))


def _name(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def parse_address(name: str) -> Address | None:
    """Parse an address, also in the short, octal and hexadecimal forms of IPv4; None for a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(name)
    # ipaddress rejects leading zeros. inet_aton reads such parts as octal, as resolvers do.
    with suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(name))
    return None


def _zone(address: Address) -> NetworkZone:
    meanings = list(_meanings(address))
    if any(meaning in _METADATA for meaning in meanings):
        return NetworkZone.METADATA
    if any(_is_reserved(meaning) for meaning in meanings):
        return NetworkZone.MACHINE
    return (
        NetworkZone.LINK
        if any(meaning.is_link_local for meaning in meanings)
        else NetworkZone.OUTSIDE
    )


def _is_reserved(address: Address) -> bool:
    """Whether an address means each machine to itself."""
    return (
        address.is_loopback
        or address.is_unspecified
        or (address.version == 4 and address in _THIS_NETWORK)
    )


def _meanings(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses that it contains."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    plain = ipaddress.IPv6Address(int(address))  # without a zone identifier
    yield plain
    number = int(plain)
    last = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    # `::` and `::1` are in the same network, and contain no IPv4 address.
    compatible = plain in _COMPATIBLE and number > 1
    if plain.ipv4_mapped is not None or compatible or plain in _TRANSLATED or plain in _NAT64:
        yield last
    if plain.sixtofour is not None:
        yield plain.sixtofour
    if plain.teredo is not None:
        yield from plain.teredo
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield last
    if plain in _LOCAL_NAT64:
        yield from _local_nat64(number)


def _local_nat64(number: int) -> Iterator[Address]:
    """The IPv4 addresses in an address of the local NAT64 prefix, for each possible length of the
    prefix (RFC 6052, 2.2).
    """
    if not number >> 32 & 0xFFFFFFFFFFFF:  # /96
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
        return
    # The bits from 48 on, without the reserved bits 64 to 71.
    packed = (number >> 64 & 0xFFFF) << 56 | number & ((1 << 56) - 1)
    for shift in (40, 32, 24):  # /48, /56, /64
        candidate = packed >> shift & 0xFFFFFFFF
        if candidate >> 24:  # zero in the first octet means a longer prefix
            yield ipaddress.IPv4Address(candidate)


def is_own(address: Address) -> bool:
    """Whether an interface of this machine has the address."""
    # If a documentation address can be bound as well (ip_nonlocal_bind), a bind proves nothing.
    return _can_bind(address) and not _can_bind(ipaddress.ip_address(_NEVER_OURS[address.version]))


def _can_bind(address: Address) -> bool:
    """Whether the kernel binds a socket to the address. With ip_nonlocal_bind it binds to any."""
    with (
        suppress(OSError),
        socket.socket(_FAMILIES[address.version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe,
    ):
        probe.bind((str(address), 0))
        return True
    return False
