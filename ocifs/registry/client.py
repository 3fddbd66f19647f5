"""A registry as a Catalog and a BlobSource (distribution-spec).

Rules that hold here: what to ask is in `oci.endpoints` and what an answer means in `oci.responses`;
lists are followed by their Link header until there is none, and no list goes on without end; a
manifest is verified before it is given away; a blob is not, since whoever keeps it verifies it, but
what its headers say is held against its size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial

from ocifs.concurrency import off_loop
from ocifs.content import Blob, BlobStream, RawManifest
from ocifs.errors import (
    AccessDenied,
    CatalogFailed,
    CatalogUnavailable,
    IntegrityError,
    LimitExceeded,
    Malformed,
    NotFound,
    RegistryFailed,
)
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints, responses
from ocifs.oci.manifest import digest_of_manifest, verify_manifest
from ocifs.registry.auth.credential import Credential
from ocifs.registry.blobstream import BlobStreams
from ocifs.registry.config.endpoint import Endpoint
from ocifs.registry.connection import Connection
from ocifs.registry.lists import Lists
from ocifs.registry.referrers import Referrers
from ocifs.registry.request import RegistryRequest
from ocifs.settings import Settings

_ACCEPT = {"Accept": endpoints.ACCEPT_MANIFESTS}
_KEPT = 32  # manifests that came along with a tag and are kept until they are asked for by digest
_OK = frozenset({200})
# All but those of a wait (429) and of a challenge (401), which are dealt with as for any other
# question.
_ANY_OF_HEAD = frozenset(range(200, 600)) - {401, 429}


class RegistryClient:
    """One registry. Use `open_registry`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._came_along: dict[tuple[str, Digest], RawManifest] = {}
        self._blobs = BlobStreams(connection)
        self._lists = Lists(connection)
        self._referrers = Referrers(connection, self._lists)

    async def check(self) -> None:
        """Ask whether anybody is there. Raises Unreachable, RegistryFailed."""
        await self._connection.check()

    async def admit(self, repository: str) -> None:
        """Ask once whether a repository (empty: the registry) can be read.

        Raises NotFound, AccessDenied, and what else goes wrong.
        """
        if not repository:
            await self._connection.sign_in()
            return
        limit = self._connection.limits.answer_bytes
        await self._connection.ask(
            RegistryRequest("GET", endpoints.one_tag(repository), {}, limit=limit)
        )

    async def credential(self, repository: str) -> Credential | None:
        """The credential that the registry is shown for a repository. Asks the registry nothing."""
        return await self._connection.credential(repository)

    def facts(self) -> dict[str, object]:
        """What the registry said of itself, for status.json."""
        return self._connection.throttle.facts()

    async def repositories(self) -> tuple[str, ...]:
        """The catalog.

        Whatever the registry answers instead of a list, names can still be looked up:
        CatalogUnavailable.
        """
        with self._unavailable():
            return tuple(sorted(await self._lists.names(endpoints.catalog(), "repositories")))

    async def brief_list(self) -> tuple[str, ...] | None:
        """The catalog if it has one page, and no token is needed that is good for the catalog
        alone.
        """
        if self._connection.wants_tokens:
            return None
        with self._unavailable():
            try:
                names = await self._lists.single_page(endpoints.catalog(), "repositories")
            except AccessDenied:
                return None
        return None if names is None else tuple(sorted(names))

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (NotFound, AccessDenied, RegistryFailed, Malformed, LimitExceeded) as error:
            if error.listed:
                raise
            host, hint = (
                self._connection.host,
                "write the name of one after it; in a mount enter it, or use --repo",
            )
            if isinstance(error, NotFound | AccessDenied) or (
                isinstance(error, RegistryFailed) and error.status == 405
            ):
                raise CatalogUnavailable(
                    f"{host} does not list its repositories", hint=hint
                ) from error
            message = f"{host} does not list its repositories: {error}"
            raise CatalogFailed(message, hint=error.hint or hint) from error

    async def tags(self, repository: str) -> tuple[str, ...]:
        return await self._lists.names(endpoints.tags(repository), "tags")

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """What a tag means.

        HEAD is only a hint: what it refuses or drops is asked for by GET, whose answer is the
        verdict.
        """
        target = endpoints.manifest(repository, tag)
        answer = await self._connection.hint(RegistryRequest("HEAD", target, _ACCEPT, _ANY_OF_HEAD))
        known = responses.read_head(answer.headers) if answer and answer.status == 200 else None
        return known or await self._get_by_tag(repository, target)

    async def _get_by_tag(self, repository: str, target: str) -> Descriptor:
        """For registries that refuse HEAD, or leave out what it is for."""
        raw = await self._tagged(repository, target)
        while len(self._came_along) >= _KEPT:
            del self._came_along[next(iter(self._came_along))]
        self._came_along[repository, raw.digest] = raw
        return Descriptor(raw.media_type, raw.digest, len(raw.body))

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self._tagged(repository, endpoints.manifest(repository, tag))

    async def _tagged(self, repository: str, target: str) -> RawManifest:
        answer = await self._connection.ask(
            RegistryRequest("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes)
        )
        digest = responses.read_digest(answer.headers)
        if digest is None:
            digest = await off_loop(len(answer.body), partial(digest_of_manifest, answer.body))
        try:
            await off_loop(len(answer.body), partial(verify_manifest, answer.body, digest))
        except IntegrityError:
            return await self.manifest(
                repository, digest
            )  # what came is not what was meant: asked for by its name
        return RawManifest(digest, answer.headers.get("content-type", ""), answer.body)

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        kept = self._came_along.pop((repository, digest), None)
        if kept is not None:
            return kept
        digest.hasher()  # what cannot be verified is not asked for
        target = endpoints.manifest(repository, digest)
        answer = await self._connection.ask(
            RegistryRequest("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes)
        )
        await off_loop(len(answer.body), partial(verify_manifest, answer.body, digest))
        return RawManifest(digest, answer.headers.get("content-type", ""), answer.body)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        return await self._referrers.of(repository, digest)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        target = endpoints.blob(repository, digest)
        # Addresses that are signed for GET refuse HEAD, and so do some registries.
        answer = await self._connection.hint(RegistryRequest("HEAD", target, {}, _ANY_OF_HEAD))
        size = responses.read_head_size(answer.headers) if answer and answer.status == 200 else None
        if size is None:
            size = await self._blobs.size(repository, digest)
        if size is None:
            raise Malformed(f"{self._connection.host} does not say how large {digest} is")
        return size

    def open_blob(
        self, blob: Blob, start: int, stop: int
    ) -> AbstractAsyncContextManager[BlobStream]:
        return self._blobs.open(blob, start, stop)

    def report_corrupt(self, digest: Digest) -> bool:
        return False  # there is nobody else to ask


@asynccontextmanager
async def open_registry(host: str | Endpoint, settings: Settings) -> AsyncIterator[RegistryClient]:
    """A client for a registry, for as long as the block lasts. Nothing is asked to open it."""
    connection = Connection(Endpoint(host) if isinstance(host, str) else host, settings)
    try:
        yield RegistryClient(connection)
    finally:
        await connection.aclose()
