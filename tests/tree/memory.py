"""A registry in memory: the Protocols over dictionaries, with a record of what was asked.

An implementation, not a mock.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from ocifs.content import Blob, ContentSource, RawManifest
from ocifs.errors import CatalogUnavailable, NotFound, OcifsError
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import parse_manifest


@dataclass
class MemoryRegistry:
    """Repositories, tags and content; `down` is raised by every question while it is set."""

    lists_catalog: bool = True
    down: OcifsError | None = None
    known: dict[str, dict[str, Digest]] = field(default_factory=dict)
    content: dict[Digest, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    key_scope: tuple[str, ...] = ()

    def put_blob(
        self, data: bytes, media_type: str = mediatype.OCTET_STREAM, **more: object
    ) -> dict[str, object]:
        """Store a blob and give the descriptor that points at it."""
        digest = Digest.of(data)
        self.content[digest] = (media_type, data)
        return {"mediaType": media_type, "digest": str(digest), "size": len(data), **more}

    def put_manifest(
        self, repository: str, tag: str, members: dict[str, object], media_type: str = ""
    ) -> dict[str, object]:
        """Store a manifest under a tag (or, with an empty one, under its digest alone) and give its
        descriptor.
        """
        kind = media_type or (
            mediatype.OCI_INDEX if "manifests" in members else mediatype.OCI_MANIFEST
        )
        descriptor = self.put_blob(
            json.dumps({"schemaVersion": 2, "mediaType": kind, **members}).encode(), kind
        )
        tags = self.known.setdefault(repository, {})
        if tag:
            tags[tag] = Digest.parse(str(descriptor["digest"]))
        return descriptor

    @property
    def origin(self) -> ContentSource:
        return ContentSource("memory", self, self)

    async def repositories(self) -> tuple[str, ...]:
        self._ask("catalog")
        if not self.lists_catalog:
            raise CatalogUnavailable("the catalog is refused")
        return tuple(sorted(self.known))

    async def brief_list(self) -> tuple[str, ...] | None:
        return await self.repositories()

    async def tags(self, repository: str) -> tuple[str, ...]:
        self._ask(f"tags {repository}")
        return tuple(self._repository(repository))

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        self._ask(f"resolve {repository}:{tag}")
        digest = self._repository(repository).get(tag)
        if digest is None:
            raise NotFound(f"no tag {tag}")
        media_type, body = self.content[digest]
        return Descriptor(media_type, digest, len(body))

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        self._ask(f"tagged {repository}:{tag}")
        asked = list(self.asked)
        try:
            return await self.manifest(repository, (await self.resolve(repository, tag)).digest)
        finally:
            self.asked[:] = asked

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        self._ask(f"manifest {digest.short}")
        media_type, body = self._content(repository, digest)
        return RawManifest(digest, media_type, body)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        self._ask(f"referrers {digest.short}")
        found = []
        for other, (media_type, body) in self.content.items():
            if media_type in mediatype.MANIFESTS:
                manifest = parse_manifest(body, other, media_type)
                if manifest.subject is not None and manifest.subject.digest == digest:
                    kind = manifest.artifact_type or (
                        manifest.config.media_type if manifest.config else ""
                    )
                    found.append(
                        Descriptor(
                            media_type, other, len(body), manifest.annotations, artifact_type=kind
                        )
                    )
        return tuple(found)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        self._ask(f"size {digest.short}")
        return len(self._content(repository, digest)[1])

    def acquire(self, digest: Digest) -> None:
        """Everything stays."""

    def release(self, digest: Digest) -> None:
        """Everything stays."""

    async def read_blob(self, blob: Blob, offset: int, length: int, toward: int = 0) -> bytes:
        if blob.data is not None:
            return blob.data[offset : offset + length]
        self._ask(f"blob {blob.digest.short}")
        return self._content(blob.repository, blob.digest)[1][offset : offset + length]

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.down is not None:
            raise self.down

    def _repository(self, name: str) -> dict[str, Digest]:
        try:
            return self.known[name]
        except KeyError:
            raise NotFound(f"no repository {name}") from None

    def _content(self, repository: str, digest: Digest) -> tuple[str, bytes]:
        self._repository(repository)
        try:
            return self.content[digest]
        except KeyError:
            raise NotFound(f"no content {digest}") from None


class MemoryShelf:
    """A Shelf over a dictionary."""

    def __init__(self) -> None:
        self.things: dict[tuple[str, Digest], bytes] = {}

    def find(self, kind: str, key: Digest) -> BinaryIO | None:
        thing = self.things.get((kind, key))
        return None if thing is None else _file_of(thing)

    @contextmanager
    def put(self, kind: str, key: Digest) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as file:
            yield cast(BinaryIO, file)
            file.seek(0)
            self.things[kind, key] = file.read()


def _file_of(thing: bytes) -> BinaryIO:
    """A file with a descriptor, since readers may read past it with pread."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(thing)
    file.flush()
    file.seek(0)
    return cast(BinaryIO, file)
