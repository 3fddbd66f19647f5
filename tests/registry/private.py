"""A private registry: Debian's docker-registry behind nginx with TLS, and a token server with TLS.

The certificates of both are issued by the same private authority.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from ocifs.oci import mediatype
from tests.support.nginx import Front, before, tls_front
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.tokens import TokenServer, token_server

LAYER = bytes(range(256)) * 4096  # 1 MiB


@dataclass(frozen=True)
class House:
    """`registry` speaks plainly, `front` is what users know, `tokens` where the registry sends
    them.
    """

    registry: Registry
    front: Front
    tokens: TokenServer

    @property
    def host(self) -> str:
        return self.front.host

    def log_in(
        self, home: Path, entry: dict[str, str] | None = None, directory: str = ".docker"
    ) -> None:
        """What `docker login` leaves in a home."""
        packed = base64.b64encode(f"{self.tokens.user}:{self.tokens.password}".encode()).decode()
        (home / directory).mkdir(parents=True, exist_ok=True)
        kept = {"auths": {self.host: entry or {"auth": packed}}}
        (home / directory / "config.json").write_text(json.dumps(kept))

    def asked(self) -> int:
        """Requests to the registry and to its token server so far."""
        return len(self.front.asked()) + len(self.tokens.asked)


@contextlib.contextmanager
def private_house(
    directory: Path, tokens: TokenServer, client_ca: trustme.CA | None = None
) -> Iterator[House]:
    """Repositories team/one and team/two have each a manifest `v1` of one layer, LAYER, and a
    config of their own.
    """
    for name in ("open", "guarded", "front"):
        (directory / name).mkdir()
    authority = trustme.CA()
    with running_registry(directory / "open", directory / "data") as registry:
        for repository in ("team/one", "team/two"):
            config = json.dumps({"created": "2024-01-01T00:00:00Z", "author": repository}).encode()
            told = {
                "mediaType": mediatype.OCI_CONFIG,
                "digest": push_blob(registry.url, repository, config),
                "size": len(config),
            }
            layer = {
                "mediaType": mediatype.OCI_LAYER,
                "digest": push_blob(registry.url, repository, LAYER),
                "size": len(LAYER),
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "config": told,
                "layers": [layer],
            }
            push_manifest(registry.url, repository, manifest, "v1")
    with token_server(directory / "guarded", tokens, authority):
        with running_registry(directory / "guarded", directory / "data", tokens.config) as registry:
            with tls_front(
                directory / "front", authority, before(registry.host), client_ca=client_ca
            ) as front:
                yield House(registry, front, tokens)
