"""The routes to each registry, from this machine's registries.conf and hosts.toml files.

`app` makes one `RouteTable` a mount, and `MirroredRegistry` uses it from the event loop. State: the
files, which are read once: registries.conf at the start, a hosts.toml with the first use of a host.

- registries.conf comes first, since it may replace a registry by another one.
- hosts.toml then applies to the registry's own route, which it may replace by several.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ocifs.concurrency import in_thread
from ocifs.registry.config import hosts_toml, registries_conf
from ocifs.registry.config.endpoint import Route
from ocifs.registry.config.hosts_toml import HostEntry
from ocifs.registry.config.registries_conf import RegistriesConf
from ocifs.settings import NetworkSettings

# The default directory of hosts.toml files in containerd's documentation.
CONTAINERD = Path("/etc/containerd/certs.d")


class RouteTable:
    """The routes to all registries."""

    def __init__(self, conf: RegistriesConf | None = None, hosts: Path = CONTAINERD) -> None:
        self._conf = conf or RegistriesConf()
        self._directory = hosts
        self._hosts: dict[str, tuple[HostEntry, ...]] = {}

    @classmethod
    async def read(cls, network: NetworkSettings) -> RouteTable:
        """Read this machine's configuration. Raises UsageError."""
        conf = await in_thread(registries_conf.load, os.environ, network.registries_conf)
        return cls(conf, network.hosts_directory or CONTAINERD)

    @property
    def credential_helpers(self) -> tuple[str, ...]:
        """`credential-helpers` of registries.conf; empty if it is unset."""
        return self._conf.credential_helpers

    async def prepare(self, host: str) -> None:
        """Read the configuration of a host. Raises UsageError."""
        await self._load(host)

    def has_mirrors(self, host: str) -> bool:
        """Whether a mirror may serve any part of a registry. The host must be prepared."""
        entries = self._hosts.get(host, ())
        return self._conf.has_mirrors(host) or any(not entry.own for entry in entries)

    async def routes(self, host: str, repository: str, version: str = "") -> tuple[Route, ...]:
        """The routes for a repository, in the order of use (`registries_conf.routes_for`).

        Raises AccessDenied for a blocked registry, UsageError for an invalid configuration.
        """
        routes: list[Route] = []
        for route in registries_conf.routes_for(self._conf, host, repository, version):
            replaceable = route.own and not route.endpoint.scheme
            entries = await self._load(route.endpoint.host) if replaceable else ()
            if entries:
                proxy = route.endpoint.proxy
                routes += (_with_proxy(entry.route(route.repository), proxy) for entry in entries)
            else:
                routes.append(route)
        return tuple(routes)

    async def _load(self, host: str) -> tuple[HostEntry, ...]:
        # Two tasks may both read the files, with the same result.
        if host not in self._hosts:
            self._hosts[host] = await in_thread(hosts_toml.load, self._directory, host)
        return self._hosts[host]


def _with_proxy(route: Route, proxy: str) -> Route:
    """A route of hosts.toml with the proxy of registries.conf, unless it has one."""
    return replace(route, endpoint=replace(route.endpoint, proxy=route.endpoint.proxy or proxy))
