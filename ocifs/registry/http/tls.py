"""A registry's scheme, address and TLS contexts.

`Connection` calls `origin_of` once. `transport` calls `TlsConfig` for each new host, on the event
loop; the certificate files are small. State of `TlsConfig`: the contexts, for the life of a client.

- Plain HTTP is used only if the user asks for it, or on loopback without a sign of TLS.
- A registry's own certificate authorities also count for the hosts that it redirects to, as in
  docker and podman: its token server often has a certificate of the same authority.
- `--insecure-tls` and client certificates count for one host and no other.
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
    """The directories with a directory for each host (containers-certs.d(5)).

    These are docker's and podman's, of the user and of the system.
    """
    bases = (config_home(environ), Path("/etc"))
    return tuple(base / name for name in _CERTIFICATES for base in bases)


def origin_of(host: str, network: NetworkSettings, scheme: str = "") -> str:
    """A registry's base URL: `https://registry-1.docker.io`, `http://127.0.0.1:5000`.

    `scheme` is the configured one, if any. Blocks on disk for loopback.
    """
    if not scheme:
        listed = network.all_plain_http or host in network.plain_http
        scheme = "http" if listed or _is_plain_loopback(host, network) else "https"
    return f"{scheme}://{_ADDRESSES.get(host, host)}"


def may_have_tls(host: str, network: NetworkSettings) -> bool:
    """Whether TLS is tried if plain HTTP fails: on loopback, without a setting for the host."""
    return is_loopback(host) and not network.all_plain_http and host not in network.plain_http


def _is_plain_loopback(host: str, network: NetworkSettings) -> bool:
    """Whether a host is on loopback and has no sign of TLS.

    The signs are port 443, a directory with certificates, and --insecure-tls.
    """
    if not is_loopback(host) or host.endswith(":443") or host in network.insecure_tls:
        return False
    directories = certificate_directories(os.environ)
    return not any(os.path.isdir(directory / host) for directory in directories)


class TlsConfig:
    """The TLS contexts of one registry's client, host by host.

    Certificates are read when a host is contacted for the first time.
    """

    def __init__(self, network: NetworkSettings, endpoint: Endpoint | None = None) -> None:
        self._network = network
        self._endpoint = endpoint or Endpoint("")
        self._directories = certificate_directories(os.environ)
        # Shared by all hosts without certificates of their own. It trusts the registry's
        # authorities, since these also count where the registry redirects to.
        self._default: ssl.SSLContext | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def proxy(self) -> str:
        """The endpoint's configured proxy; empty: the environment decides."""
        return self._endpoint.proxy

    def context(self, authority: str) -> ssl.SSLContext:
        """The context for `host` or `host:port`.

        Raises UsageError for certificates that cannot be read. Blocks on disk.
        """
        endpoint = self._endpoint if self._is_own(authority) else Endpoint("")
        insecure = endpoint.unverified or authority in self._network.insecure_tls
        directories = [path for path in self._directories_of(authority) if os.path.isdir(path)]
        if not (insecure or directories or endpoint.authorities or endpoint.identities):
            if self._default is None:
                self._default = self._make_context()
            return self._default
        if authority not in self._contexts:
            context = self._contexts[authority] = self._make_context()
            for directory in directories:
                _load_directory(context, directory)
            _load_endpoint(context, endpoint)
            if insecure:
                # In this order: Python rejects CERT_NONE while host names are checked.
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return self._contexts[authority]

    def anchors(self, authority: str) -> list[Path]:
        """The certificate files configured for `host` or `host:port`, for a message.

        Blocks on disk.
        """
        configured = self._endpoint.authorities if self._is_own(authority) else ()
        installed = _authorities_in(self._directories_of(authority))
        return [*filter(None, [self._network.ca_file]), *configured, *installed]

    def _is_own(self, authority: str) -> bool:
        return authority == _ADDRESSES.get(self._endpoint.host, self._endpoint.host)

    def _directories_of(self, authority: str) -> list[Path]:
        # A redirect may have chosen the authority, which must not lead out of the directory.
        if authority.startswith(".") or "/" in authority:
            return []
        # Docker Hub has one directory, docker.io, although requests go to another host.
        name = DOCKER_HUB if authority == _ADDRESSES[DOCKER_HUB] else authority
        return [directory / name for directory in self._directories]

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()  # respects SSL_CERT_FILE and SSL_CERT_DIR
        if self._network.ca_file is not None:
            _load_ca_file(context, self._network.ca_file)
        if self._endpoint.host:
            for path in _authorities_in(self._directories_of(self._endpoint.host)):
                _load_or_skip(context.load_verify_locations, path)
        # A configured certificate is an anchor, whether it is a root, an intermediate or the
        # server's own, as in Go's clients. Python 3.13 has this as its default, and also checks
        # strictly (RFC 5280), which no other client does.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _authorities_in(directories: list[Path]) -> list[Path]:
    return [path for directory in directories for path in sorted(directory.glob("*.crt"))]


def _load_directory(context: ssl.SSLContext, directory: Path) -> None:
    """Load a host's authorities (*.crt) and client certificates (*.cert with *.key).

    An unusable file is skipped with a warning, here and in `_load_endpoint`: it is part of the
    machine's configuration, and TLS may work without it. Otherwise the error names the files. An
    unusable file that the command line names is an error (`_load_ca_file`).
    """
    for path in sorted(directory.glob("*.crt")):
        _load_or_skip(context.load_verify_locations, path)
    for path in sorted(directory.glob("*.cert")):
        _load_or_skip(context.load_cert_chain, path, path.with_suffix(".key"), _no_password)


def _load_or_skip(load: Callable[..., None], path: Path, *arguments: object) -> None:
    try:
        load(path, *arguments)
    except (OSError, ssl.SSLError) as error:
        log.warning("%s is skipped: %s", path, _reason(error))


def _load_endpoint(context: ssl.SSLContext, endpoint: Endpoint) -> None:
    """Load the certificates that a configuration file names for one endpoint."""
    for path in endpoint.authorities:
        _load_or_skip(context.load_verify_locations, path)
    for certificate, key in endpoint.identities:
        _load_or_skip(context.load_cert_chain, certificate, key, _no_password)


def _no_password() -> str:
    """Prevents OpenSSL from prompting on the terminal, which would block a mount."""
    return ""


def _load_ca_file(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        hint = "use a PEM file, with lines -----BEGIN CERTIFICATE-----"
        message = f"no certificate authorities in {path}: {_reason(error)}"
        raise UsageError(message, hint=hint) from None


def _reason(error: OSError) -> str:
    """Why a certificate file cannot be read, without OpenSSL's internal names."""
    if error.errno is not None and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return "invalid PEM data"


def is_loopback(host: str) -> bool:
    """Whether a registry's host is on this machine, judged by its name alone."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
