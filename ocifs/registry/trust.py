"""How a registry's host is reached: scheme, address, TLS and proxies.

Rules that hold here: without TLS only where the user said so, and on loopback, where nobody is in between, unless something says that the
registry there has TLS; a registry's own authorities are believed of wherever it sends us, as in docker and podman, since it is often a
token server of the same house; that a certificate is not checked, and a client certificate, are for one host and no other.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ocifs.directories import config_home
from ocifs.errors import UsageError
from ocifs.oci.reference import DOCKER_HUB
from ocifs.registry.addresses import is_inner
from ocifs.registry.endpoint import Site
from ocifs.settings import NetworkSettings

_ADDRESSES = {DOCKER_HUB: "registry-1.docker.io"}
_CERTIFICATES = ("containers/certs.d", "docker/certs.d")


def certificate_directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Directories of directories named after hosts (containers-certs.d(5); docker's, of the system and without root)."""
    bases = (config_home(environ), Path("/etc"))
    return tuple(base / each for each in _CERTIFICATES for base in bases)


def origin_of(host: str, network: NetworkSettings, scheme: str = "") -> str:
    """Scheme and authority of a registry: `https://registry-1.docker.io`, `http://127.0.0.1:5000`. `scheme`: where it is settled.

    Blocks on disk for loopback.
    """
    if scheme:
        return f"{scheme}://{_ADDRESSES.get(host, host)}"
    plain = network.all_plain_http or host in network.plain_http or _is_plain_here(host, network)
    return f"{'http' if plain else 'https'}://{_ADDRESSES.get(host, host)}"


def may_have_tls(host: str, network: NetworkSettings) -> bool:
    """Whether TLS is worth a try where a registry does not understand plain http: on loopback, when nobody said how it is."""
    return is_loopback(host) and not network.all_plain_http and host not in network.plain_http


def _is_plain_here(host: str, network: NetworkSettings) -> bool:
    """Loopback without a sign of TLS: its port, certificates kept for it, --insecure-tls."""
    if not is_loopback(host) or host.endswith(":443") or host in network.insecure_tls:
        return False
    return not any((directory / host).is_dir() for directory in certificate_directories(os.environ))


class Trust:
    """Whose certificates are believed, host by host; read when the host is first spoken to."""

    def __init__(self, network: NetworkSettings, site: Site | None = None) -> None:
        self._network = network
        self._site = site or Site("")
        self._directories = certificate_directories(os.environ)
        self._usual: ssl.SSLContext | None = None
        self._own: dict[str, ssl.SSLContext] = {}

    @property
    def proxy(self) -> str:
        """The proxy that a configuration file names for the site, and so for all that is asked in its name; empty: the environment's."""
        return self._site.proxy

    def context(self, authority: str) -> ssl.SSLContext:
        """For `host` or `host:port`. Raises UsageError for certificates that cannot be read. Blocks on disk."""
        site = self._site if authority == _ADDRESSES.get(self._site.host, self._site.host) else Site("")
        insecure = site.unverified or authority in self._network.insecure_tls
        directories = [directory for directory in self._places(authority) if directory.is_dir()]
        if not (insecure or directories or site.authorities or site.identities):
            # Where a registry sends us is believed as it is itself, so this one is for all such hosts.
            if self._usual is None:
                self._usual = self._make()
            return self._usual
        if authority not in self._own:
            context = self._own[authority] = self._make()
            for directory in directories:
                _load(context, directory)
            _load_site(context, site)
            if insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return self._own[authority]

    def _places(self, authority: str) -> list[Path]:
        if authority.startswith(".") or "/" in authority:
            return []
        name = DOCKER_HUB if authority == _ADDRESSES[DOCKER_HUB] else authority
        return [directory / name for directory in self._directories]

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context()  # heeds SSL_CERT_FILE and SSL_CERT_DIR by itself
        if self._network.ca_file is not None:
            _authorities(context, self._network.ca_file)
        for path in self._own_authorities():
            _authorities(context, path)
        return context

    def _own_authorities(self) -> list[Path]:
        directories = self._places(self._site.host) if self._site.host else []
        return [path for directory in directories for path in sorted(directory.glob("*.crt"))]


def _load(context: ssl.SSLContext, directory: Path) -> None:
    """A host's own authorities (*.crt) and client certificates (*.cert, each with its *.key)."""
    for path in sorted(directory.glob("*.crt")):
        _authorities(context, path)
    for path in sorted(directory.glob("*.cert")):
        try:
            context.load_cert_chain(path, path.with_suffix(".key"), password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{path} and its .key are no client certificate: {error}") from None


def _load_site(context: ssl.SSLContext, site: Site) -> None:
    """What a configuration file names for one site."""
    for path in site.authorities:
        _authorities(context, path)
    for certificate, key in site.identities:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{certificate} is no client certificate: {error}") from None


def _no_password() -> str:
    """Instead of a question on the terminal, which a mount cannot answer."""
    return ""


def _authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        hint = "a file of certificates in PEM has lines -----BEGIN CERTIFICATE-----"
        raise UsageError(f"{path} has no certificate authorities: {error}", hint=hint) from None


def proxy_for(scheme: str, host: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a host (http_proxy, https_proxy, all_proxy, no_proxy); None: ask directly.

    This machine is never asked through a proxy, as in the container tools written in Go.
    """
    if is_inner(host):
        return None
    lower = {name.lower(): value for name, value in environ.items() if value}
    proxy = lower.get(f"{scheme}_proxy") or lower.get("all_proxy")
    if not proxy or urllib.request.proxy_bypass_environment(host, {"no": lower.get("no_proxy", "")}):  # type: ignore[attr-defined]
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """Whether a registry's host is this machine by its name alone."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
