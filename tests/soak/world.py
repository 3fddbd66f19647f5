"""What the soak knows: everything that was ever pushed, what each tag meant when, and so what a reader may see.

Rules that hold here: pure but for the pushes, which go to the registry itself and past every fault; content comes from a seed; a tag
may show what it meant within the time to live, and while faults were about, whatever it meant since the last
quiet time; never anything else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from ocifs.oci import mediatype
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

SIZES = (0, 1, 100, 65_536, 70_000, 1_000_000, 5_000_000)
REPOSITORIES = ("soak/a", "soak/a/inner", "soak/b")
TAGS = ("v1", "v2", "latest")


@dataclass
class Artifact:
    """A manifest that was pushed: the contents of its layers. `gone`: when it was deleted."""

    digest: str
    layers: tuple[bytes, ...]
    gone: float | None = None


@dataclass
class World:
    """The registry's content, and its history. Times are those of `clock`."""

    registry: Registry
    chance: random.Random
    clock: Callable[[], float] = time.monotonic
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    meanings: dict[tuple[str, str], list[tuple[float, str | None]]] = field(default_factory=dict)

    def push(self, repository: str, tag: str) -> None:
        """A new artifact under a tag."""
        count = self.chance.randrange(1, 4)
        layers = tuple(self.chance.randbytes(self.chance.choice(SIZES)) for _ in range(count))
        config = push_blob(self.registry.url, repository, b"{}")
        described = [
            {
                "mediaType": mediatype.OCTET_STREAM,
                "digest": push_blob(self.registry.url, repository, content),
                "size": len(content),
            }
            for content in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": "application/vnd.example.soak",
            "config": {"mediaType": mediatype.OCI_EMPTY, "digest": config, "size": 2},
            "layers": described,
            "annotations": {"number": str(self.chance.getrandbits(64))},
        }
        self._mean(repository, tag, None)  # from now on, either may be seen
        digest = push_manifest(self.registry.url, repository, manifest, tag)
        self.artifacts[repository, digest] = Artifact(digest, layers)
        history = self.meanings[repository, tag]
        history[-1] = (history[-1][0], digest)

    def retag(self, repository: str, tag: str, digest: str) -> None:
        """Let a tag mean a manifest that is there."""
        url = f"{self.registry.url}/v2/{repository}/manifests"
        accept = {"accept": mediatype.OCI_MANIFEST}
        body = httpx.get(f"{url}/{digest}", headers=accept, trust_env=False).raise_for_status().content
        headers = {"content-type": mediatype.OCI_MANIFEST}
        httpx.put(f"{url}/{tag}", content=body, headers=headers, trust_env=False).raise_for_status()
        self._mean(repository, tag, digest)

    def delete(self, repository: str, tag: str) -> None:
        """Delete what a tag means; every tag that means it goes."""
        digest = self.now(repository, tag)
        if digest is None:
            return
        for name in TAGS:
            if self.now(repository, name) == digest:
                self._mean(repository, name, None)
        self.artifacts[repository, digest].gone = self.clock()
        path = f"{self.registry.url}/v2/{repository}/manifests/{digest}"
        httpx.delete(path, trust_env=False).raise_for_status()

    def now(self, repository: str, tag: str) -> str | None:
        """What a tag means."""
        history = self.meanings.get((repository, tag))
        return history[-1][1] if history else None

    def allowed(self, repository: str, tag: str, since: float) -> set[str | None]:
        """What a tag may seem to be to somebody who last asked at `since`: what it meant then, and all that it meant later."""
        history = self.meanings.get((repository, tag), [])
        before = [meaning for when, meaning in history if when <= since][-1:] or [None]
        return {*before, *(meaning for when, meaning in history if when > since)}

    def _mean(self, repository: str, tag: str, digest: str | None) -> None:
        self.meanings.setdefault((repository, tag), []).append((self.clock(), digest))
