"""Several registries in one tree: a directory for each host.

Rules that hold here:

- A name that is not a valid host is absent, without a request.
- Any host can be looked up, or only the hosts that the user named.
- A listing contains the named hosts, and those that have answered.
- A host is opened once, at its first lookup.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence

from ocifs.errors import NotFound
from ocifs.oci.reference import is_registry_name, normal_host
from ocifs.tree.base import SimpleNode, SymlinkNode, WithoutLabels
from ocifs.tree.node import DIRECTORY, Attributes, Directory, DirectoryEntry, Node

# A file manager looks for these in every directory, and each of them could be a host.
_NEVER_HOSTS = frozenset(
    {"autorun.inf", "desktop.ini", "thumbs.db", "folder.jpg", "cover.jpg", "index.html"}
)


class HostsDirectory(WithoutLabels, SimpleNode):
    """The root of a tree of several hosts.

    `open_host` returns the directory of a host. `listed` returns the hosts to list. `named` are the
    hosts that can be looked up, or None for any.
    """

    __slots__ = ("_listed", "_named", "_open")
    lifetime = 1.0

    def __init__(
        self,
        open_host: Callable[[str], Awaitable[Directory]],
        listed: Callable[[], Iterable[str]],
        named: frozenset[str] | None,
        key: Hashable = "hosts",
    ) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self._open = open_host
        self._listed = listed
        self._named = named

    async def lookup(self, name: bytes) -> Node:
        text = name.decode("ascii", "replace")
        if not is_registry_name(text) or text.lower() in _NEVER_HOSTS:
            raise NotFound(f"not a registry host: {text!r}")
        host = normal_host(text.lower())
        if self._named is not None and host not in self._named:
            raise NotFound(f"not a host of this mount: {text!r}")
        if host != text:
            return SymlinkNode((self.key, name), host.encode())
        return await self._open(host)

    async def entries(self) -> Sequence[DirectoryEntry]:
        return [
            DirectoryEntry(host.encode(), await self._open(host))
            for host in sorted(set(self._listed()))
        ]
