"""The addresses that a registry may redirect to or send for a token (SSRF, leaked credentials).

`Connection` and the token requests call this module before each request to an address that a
registry has chosen.

- Pure: an address is judged as it is written. `transport` judges the addresses that a name resolves
  to.
- An address without TLS is rejected, unless the registry itself has none.
- This machine, its links and the metadata services of clouds (`addresses`) are rejected, unless the
  registry is in the same zone.
- Credentials go to a token server with TLS, or to the registry's own scheme, host and port.
- An address that cannot be parsed as an HTTP URL is Malformed.
- A message names a host, and nothing else of an address.
"""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import httpx

from ocifs.errors import AccessDenied, Malformed
from ocifs.oci.distribution.headers import HEADER_BYTES
from ocifs.registry.http.addresses import NetworkZone, zone_of

WebOrigin: TypeAlias = tuple[str, str, int | None]
"""Scheme, host and port (None: the scheme's default), normalised for comparison."""

_MISCONFIGURED = "the registry, or a proxy in front of it, redirects there: ask its operator"


def origin_in(url: str) -> WebOrigin:
    """The origin of an absolute URL. Raises Malformed."""
    parsed = _parse(url)
    return parsed.scheme, parsed.host, parsed.port


def redirect_target(registry: WebOrigin, url: str, location: str) -> str:
    """The URL that a redirect from `url` leads to. Raises Malformed if it must not be followed."""
    if len(location) > HEADER_BYTES:
        raise Malformed(f"{registry[1]} redirects to an address longer than {HEADER_BYTES} bytes")
    try:
        target = urljoin(url, location)
    except ValueError:
        raise Malformed(f"{registry[1]} redirects to an invalid address") from None
    parsed = _parse(target)
    if parsed.scheme == "http" and registry[0] == "https":
        raise Malformed(f"{registry[1]} redirects to an address without TLS: {parsed.host}")
    if (zone := _forbidden_zone(registry, parsed.host)) is not None:
        raise Malformed(f"{registry[1]} redirects to {zone.value}: {parsed.host}")
    return target


def check_realm(registry: WebOrigin, realm: str) -> None:
    """Check the address of a token server.

    Raises AccessDenied if it must not be used, Malformed if it is invalid.
    """
    parsed = _parse(realm)
    if (parsed.scheme, parsed.host, parsed.port) == registry:
        return
    plain_allowed = registry[0] == "http" and _is_same_machine(registry, parsed.host)
    if parsed.scheme != "https" and not plain_allowed:
        raise AccessDenied(f"{registry[1]} names a token server without TLS: {parsed.host}")
    if (zone := _forbidden_zone(registry, parsed.host)) is not None:
        raise AccessDenied(f"{registry[1]} names a token server at {zone.value}: {parsed.host}")


def may_have_credentials(registry: WebOrigin, realm: str) -> bool:
    """Whether credentials may be sent to a token server.

    Another port of the registry's host may belong to another user, and without TLS nothing proves
    the owner.
    """
    parsed = _parse(realm)
    return parsed.scheme == "https" or (parsed.scheme, parsed.host, parsed.port) == registry


def _is_same_machine(registry: WebOrigin, host: str) -> bool:
    """Whether a host is the registry's own, or both are names of loopback."""
    return host == registry[1] or zone_of(host) is zone_of(registry[1]) is NetworkZone.MACHINE


def _forbidden_zone(registry: WebOrigin, host: str) -> NetworkZone | None:
    zone = zone_of(host)
    return None if zone in (NetworkZone.OUTSIDE, zone_of(registry[1])) else zone


def _parse(url: str) -> httpx.URL:
    try:
        urlsplit(url)  # rejects unclosed brackets, which httpx accepts
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Malformed("invalid HTTP address", hint=_MISCONFIGURED) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        scheme = parsed.scheme or "missing"
        raise Malformed(f"not an HTTP address: scheme {scheme}", hint=_MISCONFIGURED)
    return parsed
