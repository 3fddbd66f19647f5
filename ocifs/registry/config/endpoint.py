"""Where a registry's questions may be asked, as values: the registry itself, or a mirror of it.

Rules that hold here: pure; credentials belong to a site's own host, never to the registry that it
stands in for; headers and the address of a proxy may be secrets, and are in no repr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

ROOT = "/v2"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that answers like a registry.

    `scheme`: http or https where a configuration says so, else empty: as the settings have it.
    `root`: what takes the place of `/v2`. `namespace`: the registry that it stands in for, where it
    is to be told (distribution-spec "Registry Proxying"). `unverified`: its certificate is not
    checked. `authorities`: further certificate authorities. `identities`: client certificates, each
    with its key. `proxy`: instead of what the environment says.
    """

    host: str
    scheme: str = ""
    root: str = ROOT
    namespace: str = ""
    unverified: bool = False
    authorities: tuple[Path, ...] = ()
    identities: tuple[tuple[Path, Path | None], ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    connect_timeout: float | None = None
    proxy: str = field(default="", repr=False)

    def __str__(self) -> str:
        root = "" if self.root == ROOT else self.root
        return f"{self.scheme}://{self.host}{root}" if self.scheme else f"{self.host}{root}"

    def path_of(self, target: str) -> str:
        """The path and query that a target of `oci.endpoints` has here."""
        path = self.root + target.removeprefix(ROOT) if self.root != ROOT else target
        if not self.namespace:
            return path
        return f"{path}{'&' if '?' in path else '?'}ns={quote(self.namespace, safe='')}"

    def target_of(self, path: str) -> str:
        """The target of a path here: what `path_of` was given, but for the query."""
        return ROOT + path.removeprefix(self.root) if self.root != ROOT else path


@dataclass(frozen=True, slots=True)
class Route:
    """A site, and what it may be asked about one repository, which it may know by another name.

    `by_tag`: what a tag means. `by_digest`: manifests and blobs. `own`: it is the registry itself,
    which also lists.
    """

    site: Endpoint
    repository: str
    by_tag: bool = True
    by_digest: bool = True
    own: bool = True


def with_a_fallback(site: Endpoint) -> Sequence[Endpoint]:
    """A site that may be without TLS: by TLS, unverified, where it understands that, else without."""
    return (_by(site, "https"), _by(site, "http"))


def _by(site: Endpoint, scheme: str) -> Endpoint:
    tls = scheme == "https"
    return Endpoint(
        site.host,
        scheme,
        site.root,
        site.namespace,
        tls,
        site.authorities if tls else (),
        site.identities if tls else (),
        site.headers,
        site.connect_timeout,
        site.proxy,
    )
