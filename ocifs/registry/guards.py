"""Where a registry may send us: the guards against servers that choose addresses for us (SSRF) and against leaked credentials.

Rules that hold here: pure; a place without TLS is refused unless the registry itself has none; an address of this machine or its link is
refused unless the registry is there itself, in every spelling that a resolver accepts (`127.1`, `2130706433`, `::ffff:127.0.0.1`); what
cannot be read as an address of the web is Malformed; a refusal names a host and never what else an address may hold.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import httpx

from ocifs.errors import AccessDenied, Malformed
from ocifs.oci.headers import HEADER_BYTES

Origin: TypeAlias = tuple[str, str, int | None]
"""Scheme, host and port (None: the scheme's own), normalised so that two of them may be compared."""

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def origin_in(url: str) -> Origin:
    """The origin of an absolute address. Raises Malformed for what is none."""
    read = _read(url)
    return read.scheme, read.host, read.port


def redirect_target(registry: Origin, url: str, location: str) -> str:
    """Where a redirect from `url` leads. Raises Malformed when it must not be followed."""
    if len(location) > HEADER_BYTES:
        raise Malformed(f"{registry[1]} redirects to an address longer than {HEADER_BYTES} bytes")
    try:
        target = urljoin(url, location)
    except ValueError:
        raise Malformed(f"{registry[1]} redirects to what is no address") from None
    there = _read(target)
    if there.scheme == "http" and registry[0] == "https":
        raise Malformed(f"{registry[1]} redirects to a place without TLS: {there.host}")
    if is_inner(there.host) and not is_inner(registry[1]):
        raise Malformed(f"{registry[1]} redirects to an address of this machine: {there.host}")
    return target


def check_realm(registry: Origin, realm: str) -> None:
    """Raise AccessDenied for a realm to which no credential may go; Malformed for what is no address."""
    there = _read(realm)
    if (there.scheme, there.host, there.port) == registry:
        return
    if there.scheme != "https" and not (registry[0] == "http" and there.host == registry[1]):
        raise AccessDenied(f"{registry[1]} sends us for a token to a place without TLS: {there.host}")
    if is_inner(there.host) and not is_inner(registry[1]):
        raise AccessDenied(f"{registry[1]} sends us for a token to an address of this machine: {there.host}")


def is_inner(host: str) -> bool:
    """Whether a host is this machine or its link: loopback, link-local, unspecified."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))  # the short, octal and hexadecimal forms
    except (OSError, ValueError):
        return None


def _read(url: str) -> httpx.URL:
    try:
        urlsplit(url)  # refuses brackets that are not closed, which httpx lets pass
        read = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Malformed("what should be an address of the web cannot be read") from None
    if read.scheme not in ("http", "https") or not read.host or (read.port or 0) > 65535:
        raise Malformed(f"what should be an address of the web is none: {read.scheme or 'no scheme'}")
    return read
