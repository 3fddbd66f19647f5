"""What the soak knows of one registry: everything that was ever pushed, what each tag meant when,
and so what a reader may see.

Rules that hold here:
- Pushes and deletions go to the registry itself, past every fault. Content comes from a seed.
- A tag's history is a list of moments; the first is that it is absent. A reader may see any moment
  from the first one that is allowed on.
- `lock` is held while a push changes the registry, so that a reader who takes it knows of what it
  has just seen.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import zstandard

from ocifs.oci import mediatype
from tests.layers.tars import DIRECTORY, entry, tar
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

SIZES = (0, 1, 100, 65_536, 70_000, 1_000_000, 5_000_000)
FILE_SIZES = (0, 10, 5_000, 70_000, 400_000)
REPOSITORIES = ("soak/a", "soak/a/inner", "soak/b")
TAGS = ("v1", "v2", "latest")
FORMS: dict[str, Callable[[bytes], bytes]] = {
    mediatype.OCI_LAYER: bytes,
    mediatype.OCI_LAYER_GZIP: lambda data: gzip.compress(data, 1, mtime=0),
    mediatype.OCI_LAYER_ZSTD: lambda data: zstandard.ZstdCompressor(1).compress(data),
}


@dataclass
class Artifact:
    """A manifest that was pushed.

    `gone`: when it was deleted; `files`: what its root file system holds, by path, if it is an
    image.
    """

    digest: str
    layers: tuple[bytes, ...]
    gone: float | None = None
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class World:
    """The registry's content, and its history. Times are those of `clock`."""

    registry: Registry
    chance: random.Random
    clock: Callable[[], float] = time.monotonic
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    meanings: dict[tuple[str, str], list[tuple[float, str | None]]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def push(self, repository: str, tag: str, *, image: bool = False) -> None:
        """A new artifact, or image, under a tag."""
        with self.lock:
            files, described, layers = self._image(repository) if image else self._blobs(repository)
            manifest = {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                **({} if image else {"artifactType": "application/vnd.example.soak"}),
                **described,
                "annotations": {"number": str(self.chance.getrandbits(64))},
            }
            self._mean(repository, tag, None)  # from now on, either may be seen
            digest = push_manifest(self.registry.url, repository, manifest, tag)
            self.artifacts[repository, digest] = Artifact(digest, layers, None, files)
            history = self.meanings[repository, tag]
            history[-1] = (history[-1][0], digest)

    def _blobs(
        self, repository: str
    ) -> tuple[dict[str, bytes], dict[str, object], tuple[bytes, ...]]:
        count = self.chance.randrange(1, 4)
        layers = tuple(self.chance.randbytes(self.chance.choice(SIZES)) for _ in range(count))
        config = self._upload(repository, b"{}", mediatype.OCI_EMPTY)
        described = [
            self._upload(repository, content, mediatype.OCTET_STREAM) for content in layers
        ]
        return {}, {"config": config, "layers": described}, layers

    def _image(
        self, repository: str
    ) -> tuple[dict[str, bytes], dict[str, object], tuple[bytes, ...]]:
        """An image of two layers: the second replaces one file of the first and removes another."""
        files = {f"d/{number}": self._text(self.chance.choice(FILE_SIZES)) for number in range(12)}
        upper = {"d/0": self._text(3_000), "top": self._text(70_000)}
        tars = [
            tar(
                entry("d", DIRECTORY),
                *[entry(name, content=content) for name, content in files.items()],
            ),
            tar(
                entry("d/.wh.1"), *[entry(name, content=content) for name, content in upper.items()]
            ),
        ]
        merged = {name: content for name, content in {**files, **upper}.items() if name != "d/1"}
        kinds = [self.chance.choice(list(FORMS)) for _ in tars]
        layers = tuple(FORMS[kind](data) for kind, data in zip(kinds, tars, strict=True))
        diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]
        config = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        described = [
            self._upload(repository, data, kind) for data, kind in zip(layers, kinds, strict=True)
        ]
        listed = self._upload(repository, json.dumps(config).encode(), mediatype.OCI_CONFIG)
        return merged, {"config": listed, "layers": described}, layers

    def _text(self, size: int) -> bytes:
        """Something that shrinks by half when it is compressed."""
        return self.chance.randbytes(size).hex().encode()[:size]

    def _upload(self, repository: str, content: bytes, media_type: str) -> dict[str, object]:
        digest = push_blob(self.registry.url, repository, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def retag(self, repository: str, tag: str, digest: str) -> None:
        """Let a tag mean a manifest that is there."""
        url = f"{self.registry.url}/v2/{repository}/manifests"
        accept = {"accept": mediatype.OCI_MANIFEST}
        body = (
            httpx.get(f"{url}/{digest}", headers=accept, trust_env=False).raise_for_status().content
        )
        headers = {"content-type": mediatype.OCI_MANIFEST}
        httpx.put(f"{url}/{tag}", content=body, headers=headers, trust_env=False).raise_for_status()
        self._mean(repository, tag, digest)

    def delete(self, repository: str, tag: str) -> None:
        """Delete what a tag means; every tag that means it goes."""
        with self.lock:
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

    def moments(self, repository: str, tag: str) -> list[tuple[float, str | None]]:
        """A tag's history. Before it was first pushed, it is absent."""
        return [(float("-inf"), None), *self.meanings.get((repository, tag), [])]

    def first_since(self, repository: str, tag: str, since: float) -> int:
        """The moment of a tag's history that `since` lies in."""
        return max(
            number
            for number, (when, _) in enumerate(self.moments(repository, tag))
            if when <= since
        )

    def _mean(self, repository: str, tag: str, digest: str | None) -> None:
        self.meanings.setdefault((repository, tag), []).append((self.clock(), digest))
