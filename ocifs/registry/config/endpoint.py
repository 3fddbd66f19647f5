"""Endpoints and routes: the base URLs of a registry and its mirrors, as values.

Made by the readers of the configuration files, used by `MirroredRegistry` and `Connection`. Pure.

- Credentials belong to an endpoint's own host, never to the registry that it is a mirror of.
- Headers and proxy addresses may contain secrets, and are in no repr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

ROOT = "/v2"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The base URL of a registry or mirror, with its TLS settings and headers.

    - `scheme`: the configured scheme; empty: the command line's settings decide.
    - `root`: the path that replaces `/v2`.
    - `namespace`: the host of the registry that it is a mirror of, sent as `ns` (distribution-spec
      "Registry Proxying").
    - `unverified`: its certificate is not verified.
    - `authorities`: additional certificate authorities.
    - `identities`: client certificates, each with its key.
    - `proxy`: the proxy to use instead of the environment's.
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
        """The path and query for a target of `oci.distribution.endpoints`."""
        path = self.root + target.removeprefix(ROOT) if self.root != ROOT else target
        if not self.namespace:
            return path
        return f"{path}{'&' if '?' in path else '?'}ns={quote(self.namespace, safe='')}"

    def target_of(self, path: str) -> str:
        """The target for a path at this endpoint: the inverse of `path_of`, except for `ns`."""
        return ROOT + path.removeprefix(self.root) if self.root != ROOT else path


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint for one repository, with the repository's name there.

    `by_tag`: it resolves tags. `by_digest`: it serves manifests and blobs. `own`: it is the
    registry itself, which also serves lists.
    """

    endpoint: Endpoint
    repository: str
    by_tag: bool = True
    by_digest: bool = True
    own: bool = True


def with_plain_fallback(endpoint: Endpoint) -> Sequence[Endpoint]:
    """An insecure endpoint: with unverified TLS first, then without TLS."""
    return (_with_scheme(endpoint, "https"), _with_scheme(endpoint, "http"))


def _with_scheme(endpoint: Endpoint, scheme: str) -> Endpoint:
    tls = scheme == "https"
    return replace(
        endpoint,
        scheme=scheme,
        unverified=tls,
        authorities=endpoint.authorities if tls else (),
        identities=endpoint.identities if tls else (),
    )
