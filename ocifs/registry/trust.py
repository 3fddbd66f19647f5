"""How a registry's host is reached: scheme, address and TLS.

Rules that hold here: without TLS only where the user said so, and on loopback, where nobody is in between.
"""

from __future__ import annotations

import ipaddress
import os
import ssl

from ocifs.errors import UsageError
from ocifs.oci.reference import DOCKER_HUB
from ocifs.settings import NetworkSettings

_ADDRESSES = {DOCKER_HUB: "registry-1.docker.io"}


def origin_of(host: str, network: NetworkSettings) -> str:
    """Scheme and authority of a registry: `https://registry-1.docker.io`, `http://127.0.0.1:5000`."""
    plain = network.all_plain_http or host in network.plain_http or _is_loopback(host)
    return f"{'http' if plain else 'https'}://{_ADDRESSES.get(host, host)}"


def tls_context(host: str, network: NetworkSettings) -> ssl.SSLContext:
    """Whose certificates are believed. Raises UsageError for a file of authorities that is none."""
    context = ssl.create_default_context()
    if os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(os.environ["SSL_CERT_FILE"])
    if network.ca_file is not None:
        try:
            context.load_verify_locations(network.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{network.ca_file} has no certificate authorities: {error}") from None
    if host in network.insecure_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
