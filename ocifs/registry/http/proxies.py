"""Proxies: which one the environment names for a host, and connection pools that go through one.

`transport` calls this module for each new host. The environment is read each time.

- http_proxy, https_proxy, all_proxy and no_proxy, in either case, as curl and Go's net/http read
  them.
- An entry of no_proxy is a host, an address, or a network (10.0.0.0/8), perhaps with a port. A name
  stands for itself and what is below it, with or without a leading "." or "*.". Names are not
  resolved.
- This machine is never asked through a proxy, as in the container tools written in Go.
- Proxies with SOCKS need the package socksio (the extra `socks`), which nothing else imports.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpcore
import httpx

from ocifs.errors import OcifsError, UsageError
from ocifs.registry.http.addresses import NetworkZone, is_inner
from ocifs.registry.http.errors import causes_of, our_error
from ocifs.registry.http.sockets import Backend

_PORTS = {"http": 80, "https": 443}
_PORT = re.compile(r":([0-9]{1,5})")
_KEPT_ALIVE = 30.0  # seconds for which an idle connection is kept
_SOCKS = ("socks5", "socks5h")
_HINT = "http_proxy, https_proxy, all_proxy or a file of this machine names it: http://, https:// or socks5://"


def proxy_for(scheme: str, host: str, port: int | None, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a host; None: ask directly."""
    if is_inner(host):
        return None
    lower = {name.lower(): value for name, value in environ.items() if value}
    proxy = lower.get(f"{scheme}_proxy") or lower.get("all_proxy")
    if not proxy or _is_exempt(host, port or _PORTS[scheme], lower.get("no_proxy", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    address = _address(name)
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        if entry == "*" or ("/" in entry and address is not None and _is_within(address, entry)):
            return True
        wanted, wanted_port = _split(entry)
        if wanted_port not in (None, port):
            continue
        named = wanted.removeprefix("*").removeprefix(".").rstrip(".")
        if named and (name == named or (address is None and name.endswith(f".{named}"))):
            return True
        if address is not None and address == _address(wanted):
            return True
    return False


def _split(entry: str) -> tuple[str, int | None]:
    """A host and a port: `host`, `host:1`, `[::1]`, `[::1]:1`, `::1`."""
    host, bracket, rest = entry.rpartition("]")
    if bracket:
        host = host.removeprefix("[")
    elif entry.count(":") == 1:
        host, colon, digits = entry.partition(":")
        rest = colon + digits
    else:
        return entry, None
    port = _PORT.fullmatch(rest)
    return host, int(port[1]) if port else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def proxy_error(error: Exception, proxy: str) -> OcifsError | None:
    """The error for a proxy that cannot be reached or refuses; None for a failure of what is behind
    it.
    """
    tls = any(isinstance(cause, ssl.SSLError) for cause in causes_of(error))
    if tls or not isinstance(
        error, httpcore.ConnectError | httpcore.ConnectTimeout | httpcore.ProxyError
    ):
        return None
    place = httpx.URL(proxy)
    found = our_error(error, f"the proxy {place.host}{f':{place.port}' if place.port else ''}")
    found.hint = _HINT
    return found


def make_pool(
    context: ssl.SSLContext | None,
    proxy: str | None,
    zones: set[NetworkZone] | None,
    connections: int,
) -> httpcore.AsyncConnectionPool:
    """A pool of connections, direct or through a proxy.

    Raises UsageError for a proxy that cannot be used.
    """
    if proxy is None:
        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_KEPT_ALIVE,
            network_backend=Backend(zones),
        )
    try:
        urlsplit(proxy)  # refuses brackets that are not closed, which httpx lets pass
        place = httpx.URL(proxy)
    except (httpx.InvalidURL, ValueError):
        raise UsageError("the address of the proxy cannot be read", hint=_HINT) from None
    if place.scheme not in (*_SOCKS, "http", "https") or not place.host:
        raise UsageError(f"unknown kind of proxy: {place.scheme}", hint=_HINT)
    url = httpcore.URL(scheme=place.raw_scheme, host=place.raw_host, port=place.port, target=b"/")
    login = (place.username, place.password) if place.username else None
    if place.scheme in _SOCKS:
        return _socks_pool(context, url, login, connections)
    return httpcore.AsyncHTTPProxy(
        proxy_url=url,
        proxy_auth=login,
        ssl_context=context,
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=_KEPT_ALIVE,
        network_backend=Backend(zones=None),
    )


def _socks_pool(
    context: ssl.SSLContext | None,
    url: httpcore.URL,
    login: tuple[str, str] | None,
    connections: int,
) -> httpcore.AsyncConnectionPool:
    try:
        return httpcore.AsyncSOCKSProxy(
            proxy_url=url,
            proxy_auth=login,
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_KEPT_ALIVE,
            network_backend=Backend(zones=None),
        )
    except RuntimeError:  # httpcore's, if socksio is not installed
        raise UsageError(
            "a SOCKS proxy needs the extra socks of ocifs (the package socksio)",
            hint='pip install "ocifs-mount[socks]", in the environment that has ocifs',
        ) from None
