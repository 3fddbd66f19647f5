"""The name cache of one registry: names with a time to live, manifests for ever.

Called in the event loop by the tree, and by commands. The parts of the work:

    CachedCatalog       the Catalog that the tree sees
      CachedAnswers     tags and lists, in memory and on disk         (answers.py)
      CachedManifests   manifests by digest                           (manifests.py)
      RepositoryListing the list of repositories                      (listing.py)
        RegistryAccess  requests, with back-off during an outage      (access.py, outage.py)
        NameFiles       the files on disk                             (files.py)

A tag or a list is fresh for `tag_ttl`, and an absent name stays absent for `negative_ttl`. The last
answer is written to disk, so that names can be read while the registry is away.

- There is one request at a time for each name, shared by all callers.
- An answer on disk is used only if the registry cannot be reached, never instead of its answer.
- An answer on disk belongs to the credential that the registry answered. Other credentials must
  ask.
- After a failure to reach the registry, the next requests fail at once for a growing pause.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from ocifs.concurrency import in_thread
from ocifs.content import Catalog, RawManifest
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.settings import Settings
from ocifs.store.disk import Disk
from ocifs.store.names.access import Owners, RegistryAccess, RegistryIdentity
from ocifs.store.names.answers import CachedAnswers
from ocifs.store.names.files import NameFiles
from ocifs.store.names.listing import RepositoryListing, names_in
from ocifs.store.names.manifests import CachedManifests


class CachedCatalog:
    """A Catalog over the Catalog of a registry, with a cache."""

    def __init__(
        self,
        catalog: Catalog,
        registry: RegistryIdentity,
        disk: Disk,
        nursery: trio.Nursery,
        settings: Settings,
    ) -> None:
        self.host = registry.host
        self._catalog = catalog
        self._access = RegistryAccess(registry, settings)
        self._owners = Owners(registry.identify)
        self._files = NameFiles(disk, registry.host)
        self._answers = CachedAnswers(self._access, self._owners, self._files, nursery, settings)
        self._manifests = CachedManifests(catalog, self._answers, disk)
        self._listing = RepositoryListing(catalog, self._answers)

    @property
    def stale(self) -> bool:
        """Whether earlier answers are shown, since the registry cannot be reached."""
        return self._access.stale

    @property
    def catalog_error(self) -> str:
        """Why repositories were not listed at the last attempt, or an empty string."""
        return self._listing.error

    def forget_names(self) -> None:
        """Forget all answers in memory, so that the registry is asked again."""
        self._answers.forget()
        self._listing.forget()
        self._access.forget_failures()

    async def name_files(
        self, repository: str, tag: str, digests: Iterable[Digest]
    ) -> frozenset[str]:
        """The files below `names/` of a tag (if it is not empty) and of manifests.

        They may not exist yet.
        """
        keys = [f"manifest {repository}@{digest}" for digest in digests]
        if tag:
            keys.append(f"tag {repository}:{tag}")
        return self._files.relative(await self._owners.of(repository), keys)

    async def is_known(self) -> bool:
        """Whether any answer of the registry is in the cache."""
        return await in_thread(self._files.any)

    async def has_seen(self, repository: str, digest: Digest) -> bool:
        """Whether this credential has seen a manifest of the repository that names a blob."""
        owner = await self._owners.of(repository)
        return await in_thread(self._files.names_blob, owner, repository, digest)

    async def repositories(self) -> tuple[str, ...]:
        return await self._listing.all()

    async def brief_list(self) -> tuple[str, ...] | None:
        return await self._listing.brief()

    async def tags(self, repository: str) -> tuple[str, ...]:
        return names_in(
            await self._answers.get(
                repository, f"tags {repository}", lambda: self._catalog.tags(repository)
            )
        )

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        answer = await self._answers.get(
            repository, f"tag {repository}:{tag}", lambda: self._request_tag(repository, tag)
        )
        media_type, digest, size = _fields(answer)
        return Descriptor(media_type, Digest.parse(digest), size)

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        """The manifest of a tag. A tag without an earlier answer takes one request for both.

        With an earlier answer the tag is resolved first, since its manifest may be cached.
        """
        key = f"tag {repository}:{tag}"
        known = key in self._answers.fresh or await self._answers.last(repository, key) is not None
        request = self._request_tag if known else self._request_manifest
        answer = await self._answers.get(repository, key, lambda: request(repository, tag))
        _, digest, _ = _fields(answer)
        return await self.manifest(repository, Digest.parse(digest))

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        return await self._manifests.get(repository, digest)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        key = f"referrers {repository}@{digest}"
        fresh = self._answers.fresh.get(key)
        if isinstance(fresh, tuple):
            return fresh
        generation = self._answers.generation
        answer = await self._access.ask(key, lambda: self._catalog.referrers(repository, digest))
        if generation == self._answers.generation:
            self._answers.fresh[key] = answer
        return answer

    async def _request_tag(self, repository: str, tag: str) -> list[object]:
        descriptor = await self._catalog.resolve(repository, tag)
        return [descriptor.media_type, str(descriptor.digest), descriptor.size]

    async def _request_manifest(self, repository: str, tag: str) -> list[object]:
        manifest = await self._catalog.tagged(repository, tag)
        await self._manifests.store(repository, manifest)
        return [manifest.media_type, str(manifest.digest), len(manifest.body)]


def _fields(answer: object) -> tuple[str, str, int]:
    """The media type, digest and size in the answer about a tag."""
    assert isinstance(answer, list)
    media_type, digest, size = answer
    return str(media_type), str(digest), int(size)
