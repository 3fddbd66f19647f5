"""Proxies: which one the environment names for a host, and connection pools that go through one.

`transport` calls this module for each request. The environment is read each time. No state.

- The variables are http_proxy, https_proxy, all_proxy and no_proxy, in either case, as in curl and
  Go's net/http.
- An entry of no_proxy is a host, an address, or a network (10.0.0.0/8), optionally with a port. A
  name also covers its subdomains, with or without a leading "." or "*.". Names are not resolved.
- Requests to this machine never use a proxy, as in the container tools written in Go.
- SOCKS proxies need the package socksio (the extra `socks`), which nothing else imports.
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
from ocifs.registry.http.errors import causes_of, translate_error
from ocifs.registry.http.sockets import Backend

_PORTS = {"http": 80, "https": 443}
_PORT = re.compile(r":([0-9]{1,5})")
_KEEPALIVE = 30.0  # seconds after which an idle connection is closed
_SOCKS = ("socks5", "socks5h")
_HINT = (
    "check http_proxy, https_proxy, all_proxy and the configuration files: "
    "http://, https:// or socks5://"
)


def proxy_for(scheme: str, host: str, port: int | None, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a host; None for a direct connection."""
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
        pattern, pattern_port = _split(entry)
        if pattern_port not in (None, port):
            continue
        domain = pattern.removeprefix("*").removeprefix(".").rstrip(".")
        # Only names have subdomains: the entry 0.0.1 does not exempt 10.0.0.1.
        if domain and (name == domain or (address is None and name.endswith(f".{domain}"))):
            return True
        if address is not None and address == _address(pattern):
            return True
    return False


def _split(entry: str) -> tuple[str, int | None]:
    """A host and a port: `host`, `host:1`, `[::1]`, `[::1]:1`, `::1`."""
    host, bracket, rest = entry.rpartition("]")
    if bracket:
        host = host.removeprefix("[")
    # More colons are those of an IPv6 address without a port.
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
    # An entry with the IPv4 address also exempts its mapped form, which leads to the same host.
    return getattr(address, "ipv4_mapped", None) or address


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        # An entry may have host bits, such as 10.0.0.1/8, as in Go.
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def proxy_error(error: Exception, proxy: str) -> OcifsError | None:
    """The error for a proxy that fails; None if the failure is behind the proxy."""
    tls = any(isinstance(cause, ssl.SSLError) for cause in causes_of(error))
    if tls or not isinstance(
        error, httpcore.ConnectError | httpcore.ConnectTimeout | httpcore.ProxyError
    ):
        return None
    url = httpx.URL(proxy)
    name = f"the proxy {url.host}{f':{url.port}' if url.port else ''}"
    translated = translate_error(error, name)
    translated.hint = _HINT
    return translated


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
            keepalive_expiry=_KEEPALIVE,
            network_backend=Backend(zones),
        )
    try:
        urlsplit(proxy)  # rejects unclosed brackets, which httpx accepts
        parsed = httpx.URL(proxy)
    except (httpx.InvalidURL, ValueError):
        # The address may contain a password, so it is not in the message.
        raise UsageError("invalid proxy address", hint=_HINT) from None
    if parsed.scheme not in (*_SOCKS, "http", "https") or not parsed.host:
        raise UsageError(f"unsupported proxy scheme: {parsed.scheme}", hint=_HINT)
    url = httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=b"/"
    )
    login = (parsed.username, parsed.password) if parsed.username else None
    if parsed.scheme in _SOCKS:
        return _socks_pool(context, url, login, connections)
    # The user has chosen the proxy, so its address may be in any zone.
    return httpcore.AsyncHTTPProxy(
        proxy_url=url,
        proxy_auth=login,
        ssl_context=context,
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=_KEEPALIVE,
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
            keepalive_expiry=_KEEPALIVE,
            network_backend=Backend(zones=None),
        )
    except RuntimeError:  # from httpcore, if socksio is not installed
        raise UsageError(
            "a SOCKS proxy needs the extra socks of ocifs (the package socksio)",
            hint='run pip install "ocifs-mount[socks]" in the environment of ocifs',
        ) from None
