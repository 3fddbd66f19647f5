"""The questions of `ocifs doctor`: whether a registry responds, and how.

`cli.doctor` calls this module. The first function sends one request without credentials, the second
one the first request of a mount. Nothing is cached.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ocifs.errors import CatalogUnavailable
from ocifs.oci.reference import Reference, RegistrySource
from ocifs.registry.auth.sources import standard_sources
from ocifs.registry.client import RegistryClient
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.connection import Connection
from ocifs.settings import Settings


@dataclass(frozen=True, slots=True)
class Probe:
    """A registry's response to `/v2/`.

    `skew`: the seconds by which its clock is ahead of this machine's; None without a Date header.
    `auth_scheme`: the scheme of its challenge; empty without one.
    """

    origin: str
    status: int
    seconds: float
    skew: float | None
    auth_scheme: str


async def probe_registry(host: str, settings: Settings) -> Probe:
    """Fetch `/v2/` without credentials (distribution-spec "Determining Support").

    Raises Unreachable and other errors.
    """
    connection = Connection(Endpoint(host), settings, sources=())
    try:
        began = time.time()
        response = await connection.ping()
        ended = time.time()
    finally:
        await connection.aclose()
    challenge = response.headers.get("www-authenticate", "").partition(" ")[0]
    return Probe(
        connection.url,
        response.status,
        ended - began,
        _skew(response.headers.get("date", ""), began, ended),
        challenge if response.status == 401 else "",
    )


async def try_source(source: Reference | RegistrySource, settings: Settings) -> str:
    """Send the first request of a mount of the source. Returns a sentence about the result.

    Raises the error that the mount would raise.
    """
    routes = await RouteTable.read(settings.network)
    sources = standard_sources(settings, os.environ, routes.credential_helpers)
    connection = Connection(Endpoint(source.host), settings, sources)
    client = RegistryClient(connection)
    try:
        if isinstance(source, Reference):
            if source.digest is not None:
                manifest = await client.manifest(source.repository, source.digest)
                return f"{source} exists ({len(manifest.body)} bytes)"
            descriptor = await client.resolve(source.repository, source.tag)
            return f"{source} is {descriptor.digest}"
        if source.path:
            return f"{source} has {len(await client.tags(source.path))} tags"
        # A catalog is refused to many users who can read, so a refusal is not a failed login.
        await client.admit("")
        return f"{source} lists {len(await client.repositories())} repositories"
    except CatalogUnavailable as error:
        return f"{error}: name repositories with --repo, or enter them by name"
    finally:
        await connection.aclose()


def _skew(date: str, began: float, ended: float) -> float | None:
    """The seconds by which a Date header is ahead; 0 within the request and a second before it."""
    try:
        seconds = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    # A Date header has whole seconds, rounded down.
    if began - 1 <= seconds <= ended + 1:
        return 0.0
    return seconds - (began if seconds < began else ended)
