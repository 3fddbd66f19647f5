"""Manifests by digest, which never expire.

Used in the event loop; files are read and written in worker threads. The bytes of a manifest are
among the blobs, by digest. Its media type is in the file of a name, which belongs to one repository
and one credential: other credentials must ask the registry first.
"""

from __future__ import annotations

import logging

import trio
from cachetools import TTLCache

from ocifs.concurrency import in_thread
from ocifs.content import Catalog, RawManifest
from ocifs.errors import IntegrityError, OcifsError
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import verify_manifest
from ocifs.store.disk import Disk
from ocifs.store.names.answers import CachedAnswers

log = logging.getLogger("ocifs.store")

_MANIFESTS = 512  # manifests in memory
_SECONDS = 3600.0  # for which a manifest stays in memory


class CachedManifests:
    """The manifests of one registry."""

    def __init__(self, catalog: Catalog, answers: CachedAnswers, disk: Disk) -> None:
        self._catalog = catalog
        self._answers = answers
        self._disk = disk
        self._in_memory: TTLCache[tuple[str, Digest], RawManifest] = TTLCache(
            _MANIFESTS, _SECONDS, timer=trio.current_time
        )

    async def get(self, repository: str, digest: Digest) -> RawManifest:
        """The manifest, from memory, from disk, or from the registry."""
        manifest = self._in_memory.get((repository, digest))
        if manifest is None:
            owner = await self._answers.owners.of(repository)
            manifest = await in_thread(self._read, owner, repository, digest)
            if manifest is None:
                fetched = await self._answers.once(
                    _key(repository, digest), lambda: self._fetch(repository, digest)
                )
                assert isinstance(fetched, RawManifest)
                manifest = fetched
            self._in_memory[repository, digest] = manifest
        return manifest

    async def store(self, repository: str, manifest: RawManifest) -> None:
        """Cache a manifest that the registry sent."""
        self._in_memory[repository, manifest.digest] = manifest
        owner = await self._answers.owners.of(repository)
        await in_thread(self._write, owner, repository, manifest)

    async def _fetch(self, repository: str, digest: Digest) -> RawManifest:
        manifest = await self._answers.access.ask(
            _key(repository, digest), lambda: self._catalog.manifest(repository, digest)
        )
        await self.store(repository, manifest)
        return manifest

    def _read(self, owner: str, repository: str, digest: Digest) -> RawManifest | None:
        media_type = self._answers.files.last(owner, _key(repository, digest))
        if not isinstance(media_type, str):
            return None
        body = self._disk.read(self._disk.whole(digest))
        if body is None:
            return None
        try:
            verify_manifest(body, digest)
        except IntegrityError:
            return None  # damaged on the disk, so it is fetched again
        return RawManifest(digest, media_type, body)

    def _write(self, owner: str, repository: str, manifest: RawManifest) -> None:
        # The body first: a media type without it would be of no use.
        try:
            self._disk.write(self._disk.whole(manifest.digest), manifest.body)
        except OcifsError as error:
            log.warning("cannot cache a manifest: %s", error)
            return
        self._answers.files.write(owner, _key(repository, manifest.digest), manifest.media_type)


def _key(repository: str, digest: Digest) -> str:
    return f"manifest {repository}@{digest}"
