"""A first word with a registry, for somebody who wants to know why things do not work: does it
answer, how, when.

Rules that hold here: one request without credentials, then one question as any mount would ask it;
nothing is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime

from ocifs.errors import CatalogUnavailable
from ocifs.oci.reference import Reference, RegistrySource
from ocifs.registry.client import RegistryClient
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.connection import Connection
from ocifs.settings import Settings


@dataclass(frozen=True, slots=True)
class Probe:
    """What a registry's front door says.

    `skew`: seconds by which its clock is ahead of ours, None where it does not say.

    `wants`: how it wants to be convinced of who asks (the scheme of its challenge), empty where
    anybody may.
    """

    origin: str
    status: int
    seconds: float
    skew: float | None
    wants: str


async def knock(host: str, settings: Settings) -> Probe:
    """Ask for `/v2/` without credentials (distribution-spec "Determining Support").

    Raises Unreachable and the like.
    """
    connection = Connection(Endpoint(host), settings)
    try:
        began = time.time()
        answer = await connection.greet()
        ended = time.time()
    finally:
        await connection.aclose()
    challenge = answer.headers.get("www-authenticate", "").partition(" ")[0]
    skew = _skew(answer.headers.get("date", ""), began, ended)
    return Probe(
        connection.origin,
        answer.status,
        ended - began,
        skew,
        challenge if answer.status == 401 else "",
    )


async def question(source: Reference | RegistrySource, settings: Settings) -> str:
    """Ask what a mount of the source would ask first; what came, for a person.

    Raises what the mount would meet.
    """
    locations = await RouteTable.read(settings.network)
    connection = Connection(
        Endpoint(source.host), replace(settings, network=locations.complete(settings.network))
    )
    client = RegistryClient(connection)
    try:
        if isinstance(source, Reference):
            if source.digest is not None:
                manifest = await client.manifest(source.repository, source.digest)
                return f"{source} is there ({len(manifest.body)} bytes)"
            found = await client.resolve(source.repository, source.tag)
            return f"{source} is {found.digest}"
        if source.path:
            return f"{source} has {len(await client.tags(source.path))} tags"
        return f"{source} lists {len(await client.repositories())} repositories"
    except CatalogUnavailable as error:
        return f"{error}: name repositories with --repo, or enter them by name"
    finally:
        await connection.aclose()


def _skew(date: str, began: float, ended: float) -> float | None:
    """By how much a Date header is ahead of our clock; within its own second and the request it is
    0.
    """
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    if began - 1 <= theirs <= ended + 1:
        return 0.0
    return theirs - (began if theirs < began else ended)
