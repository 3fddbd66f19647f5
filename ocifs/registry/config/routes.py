"""Where the questions about a registry go, from the configuration files of this machine:
registries.conf, then hosts.toml.

Rules that hold here: registries.conf decides first, since it may say that a registry is another
one; what it leaves as it is, or leads to, hosts.toml may spread over several hosts. Files are read
once, off the event loop.
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

CONTAINERD = Path("/etc/containerd/certs.d")
"""Where containerd's own documents put its hosts.toml directories."""


class RouteTable:
    """Whom to ask, for every registry."""

    def __init__(self, conf: RegistriesConf | None = None, hosts: Path = CONTAINERD) -> None:
        self._conf = conf or RegistriesConf()
        self._directory = hosts
        self._hosts: dict[str, tuple[HostEntry, ...]] = {}

    @classmethod
    async def read(cls, network: NetworkSettings) -> RouteTable:
        """Those of this machine. Raises UsageError."""
        conf = await in_thread(registries_conf.load, os.environ, network.registries_conf)
        return cls(conf, network.hosts_directory or CONTAINERD)

    def complete(self, network: NetworkSettings) -> NetworkSettings:
        """Settings with what registries.conf has for every registry: where credentials are looked
        for.
        """
        return replace(network, credential_helpers=self._conf.credential_helpers)

    async def prepare(self, host: str) -> None:
        """Read what there is about a host. Raises UsageError."""
        await self._load(host)

    def has_mirrors(self, host: str) -> bool:
        """Whether anything of a registry, whose host was prepared, may be answered by another one."""
        return self._conf.has_mirrors(host) or any(
            not each.own for each in self._hosts.get(host, ())
        )

    async def endpoints(self, host: str, repository: str, version: str = "") -> tuple[Route, ...]:
        """Whom to ask about a repository, in order (`registries_conf.routes_for`).

        Raises AccessDenied, UsageError.
        """
        found: list[Route] = []
        for endpoint in registries_conf.routes_for(self._conf, host, repository, version):
            hosts = (
                await self._load(endpoint.site.host)
                if endpoint.own and not endpoint.site.scheme
                else ()
            )
            if hosts:
                proxy = endpoint.site.proxy
                found += (_through(proxy, each.endpoint(endpoint.repository)) for each in hosts)
            else:
                found.append(endpoint)
        return tuple(found)

    async def _load(self, host: str) -> tuple[HostEntry, ...]:
        if host not in self._hosts:
            self._hosts[host] = await in_thread(hosts_toml.load, self._directory, host)
        return self._hosts[host]


def _through(proxy: str, endpoint: Route) -> Route:
    """An endpoint of hosts.toml, through the proxy that registries.conf names where the former
    names none.
    """
    return replace(endpoint, site=replace(endpoint.site, proxy=endpoint.site.proxy or proxy))
