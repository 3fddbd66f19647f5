"""How a registry's host is reached: scheme, address and TLS.

Rules that hold here: without TLS only where the user said so, and on loopback, where nobody is in
between, unless something says that the registry there has TLS; a registry's own authorities are
believed of wherever it sends us, as in docker and podman, since it is often a token server of the
same house; that a certificate is not checked, and a client certificate, are for one host and no
other.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from ocifs.directories import config_home
from ocifs.errors import UsageError
from ocifs.oci.reference import DOCKER_HUB
from ocifs.registry.config.endpoint import Endpoint
from ocifs.settings import NetworkSettings

log = logging.getLogger("ocifs.registry")

_ADDRESSES = {DOCKER_HUB: "registry-1.docker.io"}
_CERTIFICATES = ("containers/certs.d", "docker/certs.d")


def certificate_directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Directories of directories named after hosts (containers-certs.d(5); docker's, of the system
    and without root).
    """
    bases = (config_home(environ), Path("/etc"))
    return tuple(base / each for each in _CERTIFICATES for base in bases)


def origin_of(host: str, network: NetworkSettings, scheme: str = "") -> str:
    """Scheme and authority of a registry: `https://registry-1.docker.io`, `http://127.0.0.1:5000`.

    `scheme`: where it is settled.

    Blocks on disk for loopback.
    """
    if scheme:
        return f"{scheme}://{_ADDRESSES.get(host, host)}"
    plain = network.all_plain_http or host in network.plain_http or _is_plain_here(host, network)
    return f"{'http' if plain else 'https'}://{_ADDRESSES.get(host, host)}"


def may_have_tls(host: str, network: NetworkSettings) -> bool:
    """Whether TLS is worth a try where a registry does not understand plain http: on loopback, when
    nobody said how it is.
    """
    return is_loopback(host) and not network.all_plain_http and host not in network.plain_http


def _is_plain_here(host: str, network: NetworkSettings) -> bool:
    """Loopback without a sign of TLS: its port, certificates kept for it, --insecure-tls."""
    if not is_loopback(host) or host.endswith(":443") or host in network.insecure_tls:
        return False
    return not any(
        os.path.isdir(directory / host) for directory in certificate_directories(os.environ)
    )


class TlsConfig:
    """Whose certificates are believed, host by host; read when the host is first spoken to."""

    def __init__(self, network: NetworkSettings, site: Endpoint | None = None) -> None:
        self._network = network
        self._site = site or Endpoint("")
        self._directories = certificate_directories(os.environ)
        self._usual: ssl.SSLContext | None = None
        self._own: dict[str, ssl.SSLContext] = {}

    @property
    def proxy(self) -> str:
        """The proxy that a configuration file names for the site, and so for all that is asked in
        its name; empty: the environment's.
        """
        return self._site.proxy

    def context(self, authority: str) -> ssl.SSLContext:
        """For `host` or `host:port`.

        Raises UsageError for certificates that cannot be read. Blocks on disk.
        """
        site = (
            self._site
            if authority == _ADDRESSES.get(self._site.host, self._site.host)
            else Endpoint("")
        )
        insecure = site.unverified or authority in self._network.insecure_tls
        directories = [
            directory for directory in self._places(authority) if os.path.isdir(directory)
        ]
        if not (insecure or directories or site.authorities or site.identities):
            # Where a registry sends us is believed as it is itself, so this one is for all such
            # hosts.
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
            _load_kept(context.load_verify_locations, path)
        # A certificate that the user gives is an anchor, be it a root, an intermediate or the
        # server's own, as in Go's clients. Python 3.13 does so by default, and checks strictly (RFC
        # 5280), which no other client does.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def anchors(self, authority: str) -> list[Path]:
        """The files of certificates that were given for `host` or `host:port`, for a message.

        Blocks on disk.
        """
        site = (
            self._site.authorities
            if authority == _ADDRESSES.get(self._site.host, self._site.host)
            else ()
        )
        kept = [
            path
            for directory in self._places(authority)
            for path in sorted(directory.glob("*.crt"))
        ]
        return [*filter(None, [self._network.ca_file]), *site, *kept]

    def _own_authorities(self) -> list[Path]:
        directories = self._places(self._site.host) if self._site.host else []
        return [path for directory in directories for path in sorted(directory.glob("*.crt"))]


def _load(context: ssl.SSLContext, directory: Path) -> None:
    """A host's own authorities (*.crt) and client certificates (*.cert, each with its *.key).

    A file that cannot be used is skipped with a warning, here and in `_load_site`: it is the
    machine's configuration, and TLS may work without it. If it does not, the error names the files.
    A file named on the command line is an error (`_authorities`).
    """
    for path in sorted(directory.glob("*.crt")):
        _load_kept(context.load_verify_locations, path)
    for path in sorted(directory.glob("*.cert")):
        _load_kept(context.load_cert_chain, path, path.with_suffix(".key"), _no_password)


def _load_kept(load: Callable[..., None], path: Path, *more: object) -> None:
    try:
        load(path, *more)
    except (OSError, ssl.SSLError) as error:
        log.warning("%s is skipped: %s", path, _why(error))


def _load_site(context: ssl.SSLContext, site: Endpoint) -> None:
    """What a configuration file names for one site."""
    for path in site.authorities:
        _load_kept(context.load_verify_locations, path)
    for certificate, key in site.identities:
        _load_kept(context.load_cert_chain, certificate, key, _no_password)


def _no_password() -> str:
    """Instead of a question on the terminal, which a mount cannot answer."""
    return ""


def _authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        hint = "a file of certificates in PEM has lines -----BEGIN CERTIFICATE-----"
        raise UsageError(
            f"{path} has no certificate authorities: {_why(error)}", hint=hint
        ) from None


def _why(error: OSError) -> str:
    """A failure to read a file of certificates, without OpenSSL's own names."""
    return (
        error.strerror
        if error.errno is not None and error.strerror and not isinstance(error, ssl.SSLError)
        else "no PEM in it"
    )


def is_loopback(host: str) -> bool:
    """Whether a registry's host is this machine by its name alone."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
