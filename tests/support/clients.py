"""Clients of registries, with the standard credential sources of the test's environment.

The tests' composition root: the application hands the sources in, so do these functions.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager

from ocifs.registry import client
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.auth.sources import standard_sources
from ocifs.registry.client import RegistryClient
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.mirrors import mirrored
from ocifs.registry.mirrors.mirrored import MirroredRegistry
from ocifs.settings import Settings


def open_registry(
    endpoint: Endpoint | str, settings: Settings
) -> AbstractAsyncContextManager[RegistryClient]:
    """A client for one registry."""
    return client.open_registry(endpoint, settings, standard_sources(settings, os.environ))


def open_mirrored(
    host: str, routes: RouteTable, settings: Settings, sources: CredentialSources | None = None
) -> AbstractAsyncContextManager[MirroredRegistry]:
    """A registry with its mirrors."""
    if sources is None:
        sources = standard_sources(settings, os.environ, routes.credential_helpers)
    return mirrored.open_mirrored(host, routes, settings, sources)
