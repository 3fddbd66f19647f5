"""Where a registry may send us: the guards against servers that choose addresses for us (SSRF) and
against leaked credentials.

Rules that hold here:

- Pure: an address is judged as it is written. `transport` judges what a name resolves to.
- A place without TLS is refused unless the registry itself has none.
- This machine, its link and clouds' metadata services (`addresses`) are refused unless the registry
  is there itself.
- A credential goes to a token server with TLS or to the registry's own scheme, host and port, and
  nowhere else.
- What cannot be read as an address of the web is Malformed.
- A refusal names a host and never what else an address may hold.
"""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import httpx

from ocifs.errors import AccessDenied, Malformed
from ocifs.oci.distribution.headers import HEADER_BYTES
from ocifs.registry.http.addresses import NetworkZone, zone_of

WebOrigin: TypeAlias = tuple[str, str, int | None]
"""Scheme, host and port (None: the scheme's own), normalised so that two of them may be compared."""


def origin_in(url: str) -> WebOrigin:
    """The origin of an absolute address. Raises Malformed for what is none."""
    read = _read(url)
    return read.scheme, read.host, read.port


def redirect_target(registry: WebOrigin, url: str, location: str) -> str:
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
    if (zone := _forbidden_zone(registry, there.host)) is not None:
        raise Malformed(f"{registry[1]} redirects to {zone.value}: {there.host}")
    return target


def check_realm(registry: WebOrigin, realm: str) -> None:
    """Raise AccessDenied for a realm that must not be asked; Malformed for what is no address."""
    there = _read(realm)
    if (there.scheme, there.host, there.port) == registry:
        return
    if there.scheme != "https" and not (
        registry[0] == "http" and _same_machine(registry, there.host)
    ):
        raise AccessDenied(
            f"{registry[1]} sends us for a token to a place without TLS: {there.host}"
        )
    if (zone := _forbidden_zone(registry, there.host)) is not None:
        raise AccessDenied(f"{registry[1]} sends us for a token to {zone.value}: {there.host}")


def may_have_credentials(registry: WebOrigin, realm: str) -> bool:
    """Whether credentials may be sent to a realm.

    Another port of the registry's host may belong to another user, and without TLS nothing proves
    whose it is.
    """
    there = _read(realm)
    return there.scheme == "https" or (there.scheme, there.host, there.port) == registry


def _same_machine(registry: WebOrigin, host: str) -> bool:
    """Whether a host is the registry's own, or another name of loopback beside it (`localhost`,
    `127.0.0.1`, `::1`).
    """
    return host == registry[1] or zone_of(host) is zone_of(registry[1]) is NetworkZone.MACHINE


def _forbidden_zone(registry: WebOrigin, host: str) -> NetworkZone | None:
    zone = zone_of(host)
    return None if zone in (NetworkZone.OUTSIDE, zone_of(registry[1])) else zone


def _read(url: str) -> httpx.URL:
    try:
        urlsplit(url)  # refuses brackets that are not closed, which httpx lets pass
        read = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Malformed("what should be an address of the web cannot be read") from None
    if read.scheme not in ("http", "https") or not read.host or (read.port or 0) > 65535:
        raise Malformed(
            f"what should be an address of the web is none: {read.scheme or 'no scheme'}"
        )
    return read
